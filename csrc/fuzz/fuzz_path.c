/* Any octets give a verdict. A path found has its spans inside the input and is made of them, is found again
 * without what follows it, holds no control octet, and its mailbox alone is one. A failure leaves no spans. */
#include "smtp/path.h"

#include "fuzz.h"

static void check_mailbox(const uint8_t *in, const smtp_path *path, unsigned flags)
{
    smtp_span all = path->mailbox, local = path->local_part, domain = path->domain;

    INVARIANT(local.offset == all.offset && local.length > 0 && local.length <= SMTP_LOCAL_PART_MAX);
    INVARIANT(domain.length <= SMTP_DOMAIN_MAX);
    if (domain.length == 0) {
        INVARIANT(flags & SMTP_PATH_POSTMASTER);
        INVARIANT(all.length == 10);
    } else {
        INVARIANT(in[local.offset + local.length] == '@');
        INVARIANT(domain.offset == local.offset + local.length + 1);
        INVARIANT(all.length == local.length + 1 + domain.length);
        INVARIANT(smtp_domain_is_valid(in + domain.offset, domain.length, flags));
        INVARIANT(path->is_literal == (in[domain.offset] == '['));
        for (uint32_t i = 0; i < domain.length && !path->is_literal; i++) {
            const uint8_t *at = in + domain.offset + i;
            bool is_first = i == 0 || at[-1] == '.', is_last = i + 1 == domain.length || at[1] == '.';
            INVARIANT(!(is_first || is_last) || (*at != '-' && *at != '.'));
        }
    }
    INVARIANT(path->is_quoted == (in[local.offset] == '"'));
    for (uint32_t i = 0; i < all.length; i++) {
        uint8_t octet = in[all.offset + i];
        INVARIANT(octet >= 32 && octet != 127);
        INVARIANT(octet < 128 || path->has_utf8);
    }
    INVARIANT(smtp_utf8_is_valid(in + all.offset, all.length));
    INVARIANT(!path->has_utf8 || (flags & SMTP_PATH_UTF8));
}

static void check_failure(const smtp_path *path, size_t size)
{
    smtp_path zero;

    memset(&zero, 0, sizeof zero);
    INVARIANT(path->end <= size);
    zero.end = path->end;
    INVARIANT(memcmp(&zero, path, sizeof zero) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    smtp_path path, again;

    if (size == 0)
        return 0;
    unsigned flags = data[0] & 7;
    size--;
    uint8_t *in = exact_copy(data + 1, size);

    if (smtp_path_parse(in, size, flags, &path) == SMTP_PATH_OK) {
        INVARIANT(path.end <= size && path.end <= SMTP_PATH_MAX && in[path.end - 1] == '>');
        uint8_t *alone = exact_copy(in, path.end);
        INVARIANT(smtp_path_parse(alone, path.end, flags, &again) == SMTP_PATH_OK);
        INVARIANT(again.end == path.end && again.mailbox.length == path.mailbox.length);
        free(alone);
        if (path.is_null) {
            INVARIANT(path.end == 2 && (flags & SMTP_PATH_NULL));
        } else {
            INVARIANT(path.mailbox.offset + path.mailbox.length + 1 == path.end);
            INVARIANT(path.has_source_route == (path.mailbox.offset > 1));
            check_mailbox(in, &path, flags);
            INVARIANT(smtp_mailbox_parse(in + path.mailbox.offset, path.mailbox.length, flags, &again)
                      == SMTP_PATH_OK);
        }
    } else {
        check_failure(&path, size);
    }

    if (smtp_mailbox_parse(in, size, flags, &path) == SMTP_PATH_OK) {
        INVARIANT(path.mailbox.offset == 0 && path.mailbox.length == size && path.end == size);
        check_mailbox(in, &path, flags);
    } else {
        check_failure(&path, size);
    }
    smtp_domain_is_valid(in, size, flags);
    free(in);
    return 0;
}
