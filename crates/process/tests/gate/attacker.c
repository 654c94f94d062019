// A program that already runs an attacker's code, for the tests of the gate: each mode is one
// way to have something executed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int failed(const char *what) {
  printf("%s: %s\n", what, strerrorname_np(errno));
  fflush(stdout);
  return 1;
}

static char *const TRUE_ARGV[] = {"true", NULL};

// A copy of a program in memory.
static int in_memory(const char *path) {
  int fd = memfd_create("x", 0), from = open(path, O_RDONLY);
  if (fd < 0 || from < 0) exit(failed("memfd"));
  char buffer[65536];
  ssize_t len;
  while ((len = read(from, buffer, sizeof buffer)) > 0)
    if (write(fd, buffer, len) != len) exit(failed("write"));
  return fd;
}

static char text[2][64];
static char *volatile racing[3];
static volatile int stop;

static void *rewrite(void *unused) {
  (void)unused;
  while (!stop) {
    racing[1] = text[0];
    for (volatile int i = 0; i < 2000; i++);
    racing[1] = text[1];
    for (volatile int i = 0; i < 2000; i++);
  }
  return NULL;
}

static void *execute(void *path) {
  char *argv[] = {path, "-u", NULL};
  execve(path, argv, environ);
  exit(failed("exec"));
}

static void nothing(int signal) { (void)signal; }

static int child(void *path) {
  execl(path, path, "-u", NULL);
  return failed("exec");
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  const char *path = argc > 2 ? argv[2] : "/usr/bin/id";
  char *const plain[] = {(char *)path, "-u", NULL};
  if (!strcmp(mode, "fexec")) {
    syscall(SYS_execveat, in_memory(path), "", plain, environ, AT_EMPTY_PATH);
    return failed("exec");
  }
  if (!strcmp(mode, "proc-fd")) {
    char link[64];
    snprintf(link, sizeof link, argc > 3 ? argv[3] : "/proc/self/fd/%d", in_memory(path));
    execve(link, plain, environ);
    return failed("exec");
  }
  if (!strcmp(mode, "open-fd")) {
    syscall(SYS_execveat, open(path, O_PATH), "", plain, environ, AT_EMPTY_PATH);
    return failed("exec");
  }
  if (!strcmp(mode, "at")) {
    syscall(SYS_execveat, open("/usr/bin", O_PATH), "id", plain, environ, 0);
    return failed("exec");
  }
#ifdef __x86_64__
  if (!strcmp(mode, "int80")) {
    // Everything must lie where 32 bits reach.
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(low, path);
    strcpy(low + 256, "-u");
    unsigned *list = (unsigned *)(low + 512);
    list[0] = (unsigned)(size_t)low, list[1] = (unsigned)(size_t)(low + 256), list[2] = 0;
    int result = 11;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(low), "c"(list), "d"(0) : "memory");
    errno = -result;
    return failed("exec");
  }
  if (!strcmp(mode, "x32")) {
    syscall(0x40000000 | 520, path, plain, environ);
    return failed("exec");
  }
#endif
  if (!strcmp(mode, "timer")) {
    struct sigaction act = {.sa_handler = nothing, .sa_flags = argc > 3 ? SA_RESTART : 0};
    sigaction(SIGALRM, &act, NULL);
    // One that an exec ends; the program would be killed by it.
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec often = {{0, 100000}, {0, 100000}};
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &often, NULL);
    execve(path, plain, environ);
    return failed("exec");
  }
  if (!strcmp(mode, "undumpable")) {
    prctl(PR_SET_DUMPABLE, 0);
    execve(path, plain, environ);
    return failed("exec");
  }
  if (!strcmp(mode, "null")) {
    syscall(SYS_execve, path, NULL, NULL);
    failed("null");
    syscall(SYS_execve, path, 8, NULL);
    failed("bad list");
    char *bad[] = {(char *)8, NULL};
    syscall(SYS_execve, path, bad, NULL);
    failed("bad text");
    syscall(SYS_execve, 8, plain, NULL);
    return failed("bad path");
  }
  if (!strcmp(mode, "thread") || !strcmp(mode, "threads")) {
    pthread_t thread;
    pthread_create(&thread, NULL, execute, (void *)path);
    pthread_join(thread, NULL);
    return 1;
  }
  if (!strcmp(mode, "vfork")) {
    pid_t pid = vfork();
    if (!pid) _exit(child((void *)path));
    int status;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
  }
  if (!strcmp(mode, "spawn")) {
    pid_t pid;
    errno = posix_spawn(&pid, path, NULL, NULL, plain, environ);
    if (errno) return failed("exec");
    int status;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
  }
  if (!strcmp(mode, "clone")) {
    char *stack = malloc(65536);
    int flags = CLONE_VM | CLONE_FILES | (argc > 3 ? CLONE_PARENT : 0) | SIGCHLD;
    pid_t pid = clone(child, stack + 65536, flags, (void *)path);
    int status = 0;
    if (argc > 3) sleep(1);
    else waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
  }
  if (!strcmp(mode, "race")) {
    // The same list of arguments, in turn harmless and not: how often does the second run?
    strcpy(text[0], argv[3]);
    strcpy(text[1], argv[4]);
    racing[0] = (char *)path, racing[1] = text[0];
    pthread_t thread;
    pthread_create(&thread, NULL, rewrite, NULL);
    for (int i = 0; i < atoi(argv[5]); i++) {
      pid_t pid = vfork();
      if (!pid) {
        execve(path, (char *const *)racing, environ);
        _exit(1);
      }
      waitpid(pid, NULL, 0);
    }
    stop = 1;
    return 0;
  }
  if (!strcmp(mode, "listener")) {
    // A filter with a listener of its own, which lets everything pass.
    struct { unsigned short code; unsigned char jt, jf; unsigned k; } allow = {6, 0, 0, 0x7fff0000};
    struct { unsigned short len; void *filter; } program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, 1, 8, &program) < 0) failed("listener");
    if (syscall(SYS_seccomp, 1, 0, &program) < 0) failed("filter");
    execve(path, plain, environ);
    return failed("exec");
  }
  if (!strcmp(mode, "failing")) {
    // An exec that is let through and fails: it must not count as done.
    size_t most = 3 << 20;
    char *long_text = malloc(most);
    memset(long_text, 'x', most - 1);
    long_text[most - 1] = 0;
    char *const long_argv[] = {argv[3], NULL};
    char *long_env[] = {"A=1", NULL};
    (void)long_text;
    // Its arguments fit, its file does not execute.
    execve(argv[3], long_argv, long_env);
    failed("first");
    execve(path, plain, environ);
    return failed("exec");
  }
  if (!strcmp(mode, "many")) {
    int running = 0, count = atoi(argv[3]);
    for (int i = 0; i < count; i++) {
      pid_t pid = fork();
      if (!pid) {
        execve(path, TRUE_ARGV, environ);
        _exit(9);
      }
      if (++running >= 64) wait(NULL), running--;
    }
    int status, bad = 0;
    while (wait(&status) > 0) bad += status != 0;
    printf("bad %d\n", bad);
    return 0;
  }
  if (!strcmp(mode, "turn")) {
    // PATH is a link that leads to one place and to another, in turn, for so many seconds.
    char spare[4096];
    snprintf(spare, sizeof spare, "%s.spare", path);
    unlink(spare);
    for (time_t until = time(NULL) + atoi(argv[5]); time(NULL) < until;)
      for (int i = 0; i < 64; i++)
        if (symlink(argv[3 + (i & 1)], spare) || rename(spare, path)) return failed("turn");
    return 0;
  }
  fprintf(stderr, "no such mode\n");
  return 2;
}
