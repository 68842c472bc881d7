"""The hello of a client session. Compiled callers only, but for the names of extensions."""

EXTENSION_BITS: dict[str, int]
