from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport inbound_transaction

# What MAIL asked for (session.mail.flags has one of MAIL_TERMS) into attributes of the envelope: None, or the reply that
# refuses it. Sets session.mail_reply where less is given than was asked for.
cdef bytes terms_take(Client client, inbound_transaction *transaction)
# Whether and how EHLO offers FUTURERELEASE to this client: when it is known who it is, and again when its rights change.
cdef int future_release_offer(Client client) noexcept
