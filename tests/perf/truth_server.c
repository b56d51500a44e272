/* An HTTP server that knows the truth: it answers each request after a delay given beforehand, and keeps what that really took.
 *
 *     truth_server DELAYS_FILE RECORD_FILE [EVERY_MS STOP_MS]
 *
 * Delays are nanoseconds, 8 octets each, used in the order of arrival, from the start again where they run out; an empty file:
 * none. With EVERY_MS and STOP_MS it stops for the last STOP_MS of every EVERY_MS since its start: what arrived stays
 * unanswered until then. Prints its port and the instant of its start (CLOCK_MONOTONIC, nanoseconds). At SIGTERM it writes,
 * for every request answered, the nanoseconds between reading it and handing the reply to the socket. One request at a time on
 * a connection. Without a delay it is also a null server: a read and a write a request.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MOST_EVENTS 256
#define MOST_FDS 8192

static const char REPLY[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

typedef struct {
    int64_t due, arrived;
    int fd;
} Waiting;

static Waiting heap[MOST_FDS];
static int waiting;
static int64_t *delays, *record;
static size_t delay_count, arrivals, answered, room;
static int64_t start, every, stop;
static volatile sig_atomic_t over;

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void end(int number) {
    (void)number;
    over = 1;
}

/* Nothing is answered before this instant: `at` itself, or the end of the stop that it lies in. */
static int64_t not_before(int64_t at) {
    if (!every)
        return at;
    int64_t phase = (at - start) % every;
    return phase >= every - stop ? at - phase + every : at;
}

static void push(Waiting one) {
    int at = waiting++;
    for (; at && heap[(at - 1) / 2].due > one.due; at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = one;
}

static Waiting pop(void) {
    Waiting first = heap[0], last = heap[--waiting];
    int at = 0;
    for (int child; (child = 2 * at + 1) < waiting; at = child) {
        if (child + 1 < waiting && heap[child + 1].due < heap[child].due)
            child++;
        if (heap[child].due >= last.due)
            break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

static void answer(int fd, int64_t arrived) {
    if (answered == room) {
        room = room ? 2 * room : 1 << 16;
        record = realloc(record, room * sizeof *record);
    }
    record[answered++] = now_ns() - arrived;
    if (write(fd, REPLY, sizeof REPLY - 1) < 0)
        answered--;
}

static void receive(int poll, int fd) {
    static char data[1 << 16];
    ssize_t length = read(fd, data, sizeof data);
    if (length <= 0) {
        epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL);
        close(fd);
        return;
    }
    if (length < 4 || memcmp(data + length - 4, "\r\n\r\n", 4))
        exit(3); /* loopback brings small requests whole */
    int64_t arrived = now_ns();
    int64_t delay = delay_count ? delays[arrivals % delay_count] : 0;
    int64_t due = not_before(arrived + delay);
    arrivals++;
    if (due <= arrived)
        answer(fd, arrived);
    else
        push((Waiting){due, arrived, fd});
}

int main(int count, char **words) {
    if (count != 3 && count != 5)
        return 2;
    FILE *file = fopen(words[1], "rb");
    if (!file)
        return perror(words[1]), 1;
    fseek(file, 0, SEEK_END);
    delay_count = ftell(file) / sizeof *delays;
    rewind(file);
    delays = malloc(delay_count * sizeof *delays + 1);
    if (fread(delays, sizeof *delays, delay_count, file) != delay_count)
        return 1;
    fclose(file);
    if (count == 5) {
        every = atoll(words[3]) * 1000000;
        stop = atoll(words[4]) * 1000000;
    }
    signal(SIGTERM, end);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < MOST_FDS ? files.rlim_max : MOST_FDS;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &(struct epoll_event){.events = EPOLLIN, .data.fd = timer});
    start = now_ns();
    printf("%d %lld\n", ntohs(address.sin_port), (long long)start);
    fflush(stdout);
    struct epoll_event events[MOST_EVENTS];
    int64_t armed = 0;
    while (!over) {
        if (waiting && heap[0].due != armed) {
            armed = heap[0].due;
            struct itimerspec at = {.it_value = {armed / 1000000000, armed % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        int ready = epoll_wait(poll, events, MOST_EVENTS, -1);
        while (waiting && heap[0].due <= now_ns()) {
            Waiting first = pop();
            answer(first.fd, first.arrived);
        }
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (fd == listener) {
                int peer = accept(listener, NULL, NULL);
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(poll, EPOLL_CTL_ADD, peer, &(struct epoll_event){.events = EPOLLIN, .data.fd = peer});
            } else if (fd == timer) {
                uint64_t times;
                if (read(timer, &times, sizeof times) > 0)
                    armed = 0;
            } else {
                receive(poll, fd);
            }
        }
    }
    file = fopen(words[2], "wb");
    fwrite(record, sizeof *record, answered, file);
    fclose(file);
    printf("%zu\n", arrivals);
    return 0;
}
