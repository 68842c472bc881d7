"""What holds for every test."""

from hypothesis import settings

# How long an example takes belongs to the machine and the hour, not to the property.
settings.register_profile("angarium", deadline=None)
settings.load_profile("angarium")
