/* Any octets are refused, or are a state of as many recipients as it says, texts inside and clean, that builds into a state which reads
 * the same. */
#include "fuzz.h"
#include "spool/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size)
{
    uint8_t *data = exact_copy(in, size);
    spool_state view, second;
    if (spool_state_open(data, size, &view) == 0) {
        octets *again = octets_new(16);
        INVARIANT(again != NULL && spool_state_begin(&again) == 0);
        const uint8_t *cursor = view.entries;
        spool_recipient_state entry;
        uint32_t count = 0;
        for (; spool_state_next(&view, &cursor, &entry); count++) {
            INVARIANT(entry.reply_text.data >= data && entry.reply_text.data + entry.reply_text.length <= data + size);
            INVARIANT(entry.remote_host.data >= data && entry.remote_host.data + entry.remote_host.length <= data + size);
            INVARIANT(entry.status <= SPOOL_STATUS_EXPIRED);
            INVARIANT(spool_state_append(&again, &entry) == 0);
        }
        INVARIANT(count == view.recipient_count && again->length == size);
        INVARIANT(spool_state_open(again->data, again->length, &second) == 0 && second.recipient_count == count);
        octets_unref(again);
    }
    free(data);
    return 0;
}
