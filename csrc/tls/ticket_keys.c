#include "tls/ticket_keys.h"

#include <string.h>

void tls_ticket_keys_rotate(tls_ticket_keys *self, const uint8_t *secret)
{
    uint32_t sequence = self->sequence;
    __atomic_store_n(&self->sequence, sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    self->keys[1] = self->keys[0];
    memcpy(&self->keys[0], secret, sizeof(self->keys[0]));
    if (self->count < 2)
        self->count++;
    __atomic_store_n(&self->sequence, sequence + 2, __ATOMIC_RELEASE);
}

/* A copy that no rotation ran through. A writer that died half-way leaves an odd number: then there are no tickets,
 * rather than a worker that waits for ever. */
static bool copy(const tls_ticket_keys *self, tls_ticket_keys *into)
{
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t before = __atomic_load_n(&self->sequence, __ATOMIC_ACQUIRE);
        if (before & 1)
            continue;
        memcpy(into, self, sizeof(*into));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&self->sequence, __ATOMIC_RELAXED) == before)
            return true;
    }
    return false;
}

bool tls_ticket_keys_current(const tls_ticket_keys *self, tls_ticket_key *key)
{
    tls_ticket_keys all;
    if (!copy(self, &all) || all.count == 0)
        return false;
    *key = all.keys[0];
    return true;
}

tls_ticket_age tls_ticket_keys_find(const tls_ticket_keys *self, const uint8_t *name, tls_ticket_key *key)
{
    tls_ticket_keys all;
    if (!copy(self, &all))
        return TLS_TICKET_UNKNOWN;
    for (uint32_t i = 0; i < all.count; i++) {
        if (memcmp(all.keys[i].name, name, TLS_TICKET_NAME_OCTETS) != 0)
            continue;
        *key = all.keys[i];
        return i == 0 ? TLS_TICKET_CURRENT : TLS_TICKET_PREVIOUS;
    }
    return TLS_TICKET_UNKNOWN;
}
