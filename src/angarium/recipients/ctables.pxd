"""csrc/recipients/text_map.h and cdb.h."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "recipients/text_map.h" nogil:
    ctypedef struct text_map:
        uint64_t count

    int text_map_build(text_map *self, uint8_t *data, size_t length, bint folds_case, const uint64_t *key, uint64_t *line)
    bint text_map_find(const text_map *self, const uint8_t *key, size_t length, const uint8_t **value, size_t *value_length)
    void text_map_clear(text_map *self)

cdef extern from "recipients/cdb.h" nogil:
    int cdb_find(int fd, uint64_t file_octets, const uint8_t *key, uint32_t length, uint64_t *at, uint32_t *value_length)
