/* Any octets are a text map or refused; whatever is found lies inside; looking up any octets ends. The first octet says whether
 * case counts, what stands before the first "=" is looked up in the rest. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "recipients/text_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size)
{
    static const uint64_t key[2] = {3, 4};
    if (size < 2)
        return 0;
    const uint8_t *cut = memchr(in + 1, '=', size - 1);
    if (cut == NULL)
        return 0;
    size_t length = size - (size_t)(cut + 1 - in);
    uint8_t *data = malloc(length + 1);
    if (data == NULL)
        return 0;
    memcpy(data, cut + 1, length);
    text_map map;
    uint64_t line;
    int error = text_map_build(&map, data, length, in[0] & 1, key, &line);
    const uint8_t *value;
    size_t value_length;
    if (error == 0 && text_map_find(&map, in + 1, (size_t)(cut - in - 1), &value, &value_length)) {
        INVARIANT(value >= map.data && value + value_length < map.data + map.length);
        INVARIANT(memchr(value, '\n', value_length) == NULL);
    }
    text_map_clear(&map);
    return 0;
}
