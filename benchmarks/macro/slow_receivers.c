/* Receivers that take their time: every reply is sent DELAY_MS after the one before it, or after its command came in, whichever
 * is later. Nothing but that delay limits them: one thread, no memory a message, so that what is measured against them is the
 * sender.
 *
 *     slow_receivers PORT DELAY_MS CONNECTIONS_AN_ADDRESS SECONDS_FILE
 *
 * Listens on PORT of all of 127.0.0.0/8. A connection beyond the limit of its address gets 421. Writes a line a second into
 * SECONDS_FILE, {"second": unix time, "messages": accepted in it}, and at SIGINT a line of sums to standard output.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PENDING_OCTETS = 8192, ADDRESSES = 1 << 16, EVENTS_AT_ONCE = 512 };

typedef enum { IN_COMMANDS, IN_DATA, IN_CLOSING } phase;

typedef struct peer {
    struct peer *next;              /* in the line of those whose reply is due, oldest first: the delay is the same for all */
    uint64_t due_ms;
    const char *reply;
    int fd;
    phase phase;
    uint16_t address;               /* the lower half of ours */
    uint8_t matched;                /* octets of CRLF "." CRLF, in data */
    bool is_open_for_input, is_refused;
    uint32_t length;                /* of what is in `pending`: commands behind the one that is being answered */
    char pending[PENDING_OCTETS];
} peer;

static peer *first_due, **last_due = &first_due;
static uint64_t delay_ms, messages, messages_in_second, refused, open_count, peak_open, connections;
static uint32_t limit, open_of[ADDRESSES];
static volatile sig_atomic_t is_ending;
static int poll_fd;

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void end(int number)
{
    (void)number;
    is_ending = 1;
}

static void answer(peer *self, const char *reply)
{
    self->reply = reply;
    self->due_ms = now_ms() + delay_ms;
    self->next = NULL;
    *last_due = self;
    last_due = &self->next;
}

static void drop(peer *self)
{
    if (!self->is_refused)
        open_of[self->address]--;
    open_count--;
    close(self->fd);
    free(self);
}

static void obey(peer *self, const char *line)
{
    if (strncasecmp(line, "EHLO", 4) == 0)
        answer(self, "250-slow.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 52428800\r\n");
    else if (strncasecmp(line, "DATA", 4) == 0) {
        self->phase = IN_DATA;
        self->matched = 2;          /* the line end of DATA */
        answer(self, "354 go ahead\r\n");
    } else if (strncasecmp(line, "QUIT", 4) == 0) {
        self->phase = IN_CLOSING;
        answer(self, "221 2.0.0 bye\r\n");
    } else
        answer(self, "250 2.0.0 ok\r\n");
}

/* Data up to its end; how many octets of these belong to it. */
static size_t take_data(peer *self, const char *data, size_t length)
{
    static const char end_of_data[] = "\r\n.\r\n";
    for (size_t i = 0; i < length; i++) {
        if (data[i] == end_of_data[self->matched])
            self->matched++;
        else
            self->matched = data[i] == '\r';
        if (self->matched == 5) {
            self->phase = IN_COMMANDS;
            messages++;
            messages_in_second++;
            answer(self, "250 2.0.0 taken\r\n");
            return i + 1;
        }
    }
    return length;
}

/* What is pending, until a reply is due or no whole command is left. */
static void go_on(peer *self)
{
    size_t at = 0;
    while (self->reply == NULL && at < self->length) {
        if (self->phase == IN_DATA) {
            at += take_data(self, self->pending + at, self->length - at);
            continue;
        }
        char *start = self->pending + at, *stop = memchr(start, '\n', self->length - at);
        if (stop == NULL)
            break;
        *stop = 0;
        at += (size_t)(stop - start) + 1;
        obey(self, start);
    }
    memmove(self->pending, self->pending + at, self->length - at);
    self->length -= (uint32_t)at;
}

/* False: it is gone. */
static bool read_more(peer *self)
{
    while (self->is_open_for_input && self->length < PENDING_OCTETS && self->reply == NULL) {
        ssize_t got = recv(self->fd, self->pending + self->length, PENDING_OCTETS - self->length, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            self->is_open_for_input = false;
        else if (got <= 0 || self->phase == IN_CLOSING) {
            drop(self);
            return false;
        } else {
            self->length += (uint32_t)got;
            go_on(self);
            if (self->length == PENDING_OCTETS && self->reply == NULL) {
                drop(self);         /* a line without end */
                return false;
            }
        }
    }
    return true;
}

static void reply_to_due(void)
{
    uint64_t now = now_ms();
    while (first_due != NULL && first_due->due_ms <= now) {
        peer *self = first_due;
        first_due = self->next;
        if (first_due == NULL)
            last_due = &first_due;
        const char *reply = self->reply;
        self->reply = NULL;
        if (send(self->fd, reply, strlen(reply), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 || *reply == '4' || self->phase == IN_CLOSING) {
            drop(self);
            continue;
        }
        go_on(self);
        if (self->reply == NULL)
            read_more(self);
    }
}

static void accept_all(int listener)
{
    for (;;) {
        struct sockaddr_in ours = {0};
        socklen_t length = sizeof ours;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0)
            return;
        peer *self = malloc(sizeof *self);
        if (self == NULL || getsockname(fd, (struct sockaddr *)&ours, &length) != 0) {
            free(self);
            close(fd);
            continue;
        }
        memset(self, 0, offsetof(peer, pending));
        self->fd = fd;
        self->address = (uint16_t)ntohl(ours.sin_addr.s_addr);
        self->is_refused = open_of[self->address] >= limit;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = self};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
        connections++;
        open_count++;
        if (self->is_refused)
            refused++;
        else
            open_of[self->address]++;
        if (open_count > peak_open)
            peak_open = open_count;
        answer(self, self->is_refused ? "421 4.7.0 too many connections\r\n" : "220 slow.example ESMTP\r\n");
    }
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: slow_receivers PORT DELAY_MS CONNECTIONS_AN_ADDRESS SECONDS_FILE\n");
        return 2;
    }
    delay_ms = strtoul(words[2], NULL, 10);
    limit = (uint32_t)strtoul(words[3], NULL, 10);
    FILE *seconds = fopen(words[4], "we");
    struct rlimit descriptors = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &descriptors);
    signal(SIGINT, end);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(words[1], NULL, 10))};
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS_AT_ONCE];
    if (seconds == NULL || bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 65535) != 0
        || epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event) != 0) {
        perror("slow_receivers");
        return 1;
    }
    fprintf(stderr, "listening\n");
    time_t second = time(NULL);
    while (!is_ending) {
        int wait_ms = 100;
        if (first_due != NULL) {
            uint64_t now = now_ms();
            wait_ms = first_due->due_ms > now ? (int)(first_due->due_ms - now) : 0;
            wait_ms = wait_ms > 100 ? 100 : wait_ms;
        }
        int found = epoll_wait(poll_fd, events, EVENTS_AT_ONCE, wait_ms);
        for (int i = 0; i < found; i++) {
            peer *self = events[i].data.ptr;
            if (self == NULL) {
                accept_all(listener);
                continue;
            }
            self->is_open_for_input = true;
            if (self->reply == NULL)        /* else it is read when that is out: a peer in line cannot be dropped */
                read_more(self);
        }
        reply_to_due();
        if (time(NULL) != second) {
            fprintf(seconds, "{\"second\": %lld, \"messages\": %llu}\n", (long long)second, (unsigned long long)messages_in_second);
            fflush(seconds);
            messages_in_second = 0;
            second = time(NULL);
        }
    }
    printf("{\"messages\": %llu, \"connections\": %llu, \"refused_connections\": %llu, \"peak_open\": %llu}\n",
           (unsigned long long)messages, (unsigned long long)connections, (unsigned long long)refused,
           (unsigned long long)peak_open);
    return 0;
}
