/* Any octets give a verdict; a prefix is PARTIAL or has the verdict of the whole; what follows a header changes nothing. */
#include "smtp/proxy.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    proxy_header whole, part;
    uint8_t *in = exact_copy(data, size);
    proxy_result result = proxy_header_parse(in, size, &whole);

    INVARIANT(result == PROXY_OK ? whole.length > 0 && whole.length <= size && whole.length <= PROXY_OCTETS_MAX
                                 : whole.length == 0);
    for (size_t cut = 0; cut < size && cut < 300; cut++) {
        proxy_result early = proxy_header_parse(in, cut, &part);
        INVARIANT(early == PROXY_PARTIAL || early == result);
        if (early == PROXY_OK)
            INVARIANT(part.length == whole.length && part.is_local == whole.is_local && part.port == whole.port
                      && memcmp(part.address, whole.address, sizeof whole.address) == 0
                      && memcmp(part.destination, whole.destination, sizeof whole.destination) == 0
                      && part.destination_port == whole.destination_port);
    }
    if (result == PROXY_PARTIAL)
        INVARIANT(size < PROXY_OCTETS_MAX);
    free(in);
    return 0;
}
