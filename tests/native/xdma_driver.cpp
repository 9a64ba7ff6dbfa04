// Stands in for the XDMA driver where memory.bin stands in for the card: preloaded, it does to transfers what
// the driver may do. FAKE_XDMA has words like "short=1000,interrupt=3,align=64":
//   short=N      at most N bytes a call
//   interrupt=N  every Nth call fails with EINTR
//   align=N      EINVAL unless host memory and address agree modulo N
//   error=N      every call fails with this number
//   refuse=N     opening ..._h2c_0 fails with this number
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// 0 where it is not among the words.
unsigned long asked(const char* word) {
    const char* const text = std::getenv("FAKE_XDMA");
    const char* const at = text == nullptr ? nullptr : std::strstr(text, word);
    return at == nullptr ? 0 : std::strtoul(at + std::strlen(word), nullptr, 10);
}

bool is_card(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return false;
    path[length] = 0;
    return std::strstr(path, "memory.bin") != nullptr;
}

// The length that passes, or 0 with errno.
size_t admitted(const void* host, size_t length, off_t address) {
    static unsigned long calls = 0;
    ++calls;
    const unsigned long interrupt = asked("interrupt="), align = asked("align="), most = asked("short=");
    errno = 0;
    if (asked("error=") != 0)
        errno = static_cast<int>(asked("error="));
    else if (interrupt != 0 && calls % interrupt == 0)
        errno = EINTR;
    else if (align != 0 &&
             reinterpret_cast<uintptr_t>(host) % align != static_cast<uint64_t>(address) % align)
        errno = EINVAL;
    if (errno != 0) return 0;
    return most == 0 ? length : std::min<size_t>(length, most);
}

ssize_t read_card(int file, void* to, size_t length, off_t address) {
    if (is_card(file) && (length = admitted(to, length, address)) == 0) return -1;
    return syscall(SYS_pread64, file, to, length, address);
}

ssize_t write_card(int file, const void* from, size_t length, off_t address) {
    if (is_card(file) && (length = admitted(from, length, address)) == 0) return -1;
    return syscall(SYS_pwrite64, file, from, length, address);
}

int open_card(const char* path, int flags, mode_t mode) {
    if (asked("refuse=") != 0 && std::strstr(path, "_h2c_0") != nullptr) {
        errno = static_cast<int>(asked("refuse="));
        return -1;
    }
    return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

}  // namespace

extern "C" {
ssize_t pread(int file, void* to, size_t length, off_t at) { return read_card(file, to, length, at); }
ssize_t pread64(int file, void* to, size_t length, off64_t at) { return read_card(file, to, length, at); }
ssize_t pwrite(int file, const void* from, size_t length, off_t at) {
    return write_card(file, from, length, at);
}
ssize_t pwrite64(int file, const void* from, size_t length, off64_t at) {
    return write_card(file, from, length, at);
}

int open(const char* path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const mode_t mode = static_cast<mode_t>(va_arg(list, int));
    va_end(list);
    return open_card(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const mode_t mode = static_cast<mode_t>(va_arg(list, int));
    va_end(list);
    return open_card(path, flags, mode);
}
}
