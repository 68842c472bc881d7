/* A client of the TLS benchmark: connections that are kept, message after message on each, in clear or under TLS.
 *
 *     kept_client PORT CONNECTIONS BEGIN SECONDS clear|tls [RESPONSE]
 *
 * One thread over all connections, so that what the client takes of the machine is as little as it can be, and the same way
 * in clear and under TLS: epoll(7), one write a group of commands, one a message, OpenSSL on sockets without a buffer in
 * between. Connections are made first, with STARTTLS, and with AUTH PLAIN where there is a RESPONSE; from BEGIN on, of the
 * monotonic clock, messages are sent: MAIL, RCPT and DATA in one group, the replies are waited for, then the content and its
 * reply. Prints {"done": messages, "seconds": ..., "cpu_s": ...} of the time from BEGIN on. Exit status 1: a refusal, a
 * closed connection, or connections that were not there at BEGIN.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONTENT_OCTETS 4094
#define READ_OCTETS 16384
#define EVENTS 64

typedef struct connection {
    int fd;
    SSL *ssl;                   /* NULL in clear */
    int due;                    /* replies that are waited for */
    bool is_in_data;            /* the content is on its way */
    char line[4];               /* the code of the line that is being read, and what follows it */
    size_t at;                  /* in that line */
} connection;

static const char ENVELOPE[] = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n";
static const char HEADER[] = "From: <a@x.example>\r\nSubject: x\r\n\r\n";
static const char LINE[] = "Neither snow nor rain nor heat nor gloom of night.\r\n";
static char content[CONTENT_OCTETS + 5];

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("kept_client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void await(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};
    while (poll(&one, 1, 30000) < 0 && errno == EINTR)
        ;
}

static void say(connection *c, const char *octets, size_t length)
{
    while (length) {
        int sent = c->ssl != NULL ? SSL_write(c->ssl, octets, (int)length) : (int)send(c->fd, octets, length, MSG_NOSIGNAL);
        if (sent > 0) {
            octets += sent;
            length -= (size_t)sent;
        } else if (c->ssl != NULL ? SSL_get_error(c->ssl, sent) == SSL_ERROR_WANT_WRITE : errno == EAGAIN) {
            await(c->fd, POLLOUT);
        } else {
            die("sending failed");
        }
    }
}

/* Takes what is there; the replies that were waited for are counted down. False: nothing was there. */
static bool hear(connection *c)
{
    static char octets[READ_OCTETS];
    int got = c->ssl != NULL ? SSL_read(c->ssl, octets, sizeof(octets)) : (int)recv(c->fd, octets, sizeof(octets), 0);
    if (got <= 0) {
        if (c->ssl != NULL ? SSL_get_error(c->ssl, got) == SSL_ERROR_WANT_READ : got < 0 && errno == EAGAIN)
            return false;
        die("the server has closed");
    }
    for (int i = 0; i < got; i++) {
        if (c->at < sizeof(c->line))
            c->line[c->at] = octets[i];
        c->at++;
        if (octets[i] != '\n')
            continue;
        if (c->line[0] != '2' && c->line[0] != '3')
            die("refused: %.3s", c->line);
        c->due -= c->line[3] != '-';
        c->at = 0;
    }
    return true;
}

static void ask(connection *c, const char *octets, int replies)
{
    say(c, octets, strlen(octets));
    for (c->due = replies; c->due > 0;)
        if (!hear(c))
            await(c->fd, POLLIN);
}

static void open_connection(connection *c, int port, SSL_CTX *tls, const char *response)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    memset(c, 0, sizeof(*c));
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        die("cannot connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    ask(c, "", 1);
    ask(c, "EHLO client.example\r\n", 1);
    if (tls != NULL) {
        ask(c, "STARTTLS\r\n", 1);
        SSL *ssl = SSL_new(tls);
        SSL_set_fd(ssl, c->fd);
        for (int result; (result = SSL_connect(ssl)) != 1;) {
            int error = SSL_get_error(ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                die("the handshake failed");
            await(c->fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT);
        }
        c->ssl = ssl;
        ask(c, "EHLO client.example\r\n", 1);
    }
    if (response != NULL) {
        char command[512];
        snprintf(command, sizeof(command), "AUTH PLAIN %s\r\n", response);
        ask(c, command, 1);
    }
}

static void begin_message(connection *c)
{
    c->is_in_data = false;
    c->due = 3;
    say(c, ENVELOPE, sizeof(ENVELOPE) - 1);
}

static void make_content(void)
{
    size_t length = sizeof(HEADER) - 1;
    memcpy(content, HEADER, length);
    while (length + sizeof(LINE) - 1 <= CONTENT_OCTETS - 2) {
        memcpy(content + length, LINE, sizeof(LINE) - 1);
        length += sizeof(LINE) - 1;
    }
    while (length < CONTENT_OCTETS - 2)
        content[length++] = 'x';
    memcpy(content + length, "\r\n.\r\n", 5);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        die("PORT CONNECTIONS BEGIN SECONDS clear|tls [RESPONSE]");
    int port = atoi(argv[1]), count = atoi(argv[2]);
    double begin = atof(argv[3]), seconds = atof(argv[4]);
    SSL_CTX *tls = NULL;
    if (strcmp(argv[5], "tls") == 0) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_read_ahead(tls, 1);         /* a record with one read(2) in place of two */
    }
    make_content();
    connection *all = calloc((size_t)count, sizeof(*all));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        open_connection(&all[i], port, tls, argc > 6 ? argv[6] : NULL);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    double left = begin - now();
    if (left < 0)
        die("%d connections took %.1f s too long", count, -left);
    usleep((useconds_t)(left * 1e6));
    double used_before = cpu_s();
    unsigned long done = 0;
    for (int i = 0; i < count; i++)
        begin_message(&all[i]);
    while (now() < begin + seconds) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 100);
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            /* OpenSSL may hold a record that the socket is no longer readable for. */
            while (hear(c) && c->due > 0 && c->ssl != NULL && SSL_has_pending(c->ssl))
                ;
            if (c->due > 0)
                continue;
            if (!c->is_in_data) {
                c->is_in_data = true;
                c->due = 1;
                say(c, content, CONTENT_OCTETS + 3);
            } else {
                done++;
                begin_message(c);
            }
        }
    }
    printf("{\"done\": %lu, \"seconds\": %.6f, \"cpu_s\": %.6f}\n", done, now() - begin, cpu_s() - used_before);
    return 0;
}
