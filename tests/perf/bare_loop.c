/* The least a client can do: two system calls a request, no parsing, no timing.
 *
 *     bare_loop PORT CONNECTIONS MILLISECONDS REQUEST_FILE [RATE]
 *
 * A closed loop over epoll: whatever can be read is taken for one whole reply, and the same request is written again. What it
 * reaches is the limit of any client with one read and one write a request. With a RATE it is an open loop: a timerfd, armed
 * anew for each request, paces evenly spaced ones, on one connection after the other. Prints requests and seconds; whoever
 * started it asks the system for its CPU time.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
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
    if (count != 5 && count != 6)
        return fprintf(stderr, "bare_loop PORT CONNECTIONS MILLISECONDS REQUEST_FILE [RATE]\n"), 2;
    long step_ns = count == 6 ? 1000000000 / atol(words[5]) : 0;
    FILE *file = fopen(words[4], "rb");
    if (!file)
        fail(words[4]);
    size_t length = fread(request, 1, sizeof request, file);
    fclose(file);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int poll = epoll_create1(0), one = 1, connections = atoi(words[2]), timer = -1, next = 0;
    int *fds = calloc(connections, sizeof *fds);
    for (int number = 0; number < connections; number++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address))
            fail("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        fds[number] = fd;
        if (!step_ns && write(fd, request, length) != (ssize_t)length)
            fail("write");
    }
    long long due_ns = now_s() * 1e9;
    if (step_ns) {
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = timer};
        epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &(struct itimerspec){.it_value = {0, 1}}, NULL);
    }
    struct epoll_event events[MOST_EVENTS];
    long requests = 0;
    double began = now_s(), end = began + atoi(words[3]) / 1e3, at;
    while ((at = now_s()) < end) {
        int ready = epoll_wait(poll, events, MOST_EVENTS, 100);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (fd == timer) { /* setting it anew takes back that it went off */
                for (; due_ns <= now_s() * 1e9; due_ns += step_ns, next = (next + 1) % connections)
                    if (write(fds[next], request, length) != (ssize_t)length)
                        fail("write");
                struct itimerspec at = {.it_value = {due_ns / 1000000000, due_ns % 1000000000}};
                timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
                continue;
            }
            if (read(fd, reply, sizeof reply) <= 0)
                fail("read");
            requests++;
            if (!step_ns && write(fd, request, length) != (ssize_t)length)
                fail("write");
        }
    }
    printf("%ld %.6f\n", requests, at - began);
    return 0;
}
