/* The least a client can do: two system calls a request, no parsing, no timing.
 *
 *     bare_loop PORT CONNECTIONS MILLISECONDS REQUEST_FILE
 *
 * A closed loop over epoll: whatever can be read is taken for one whole reply, and the same request is written again. What it
 * reaches is the limit of any client with one read and one write a request. Prints requests and seconds; whoever started it
 * asks the system for its CPU time.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_EVENTS 256

static double now_s(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int count, char **words) {
    static char request[1 << 16], reply[1 << 16];
    if (count != 5)
        return fprintf(stderr, "bare_loop PORT CONNECTIONS MILLISECONDS REQUEST_FILE\n"), 2;
    FILE *file = fopen(words[4], "rb");
    if (!file)
        fail(words[4]);
    size_t length = fread(request, 1, sizeof request, file);
    fclose(file);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int poll = epoll_create1(0), one = 1;
    for (int number = atoi(words[2]); number > 0; number--) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address))
            fail("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        if (write(fd, request, length) != (ssize_t)length)
            fail("write");
    }
    struct epoll_event events[MOST_EVENTS];
    long requests = 0;
    double began = now_s(), end = began + atoi(words[3]) / 1e3, at;
    while ((at = now_s()) < end) {
        int ready = epoll_wait(poll, events, MOST_EVENTS, 100);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (read(fd, reply, sizeof reply) <= 0)
                fail("read");
            requests++;
            if (write(fd, request, length) != (ssize_t)length)
                fail("write");
        }
    }
    printf("%ld %.6f\n", requests, at - began);
    return 0;
}
