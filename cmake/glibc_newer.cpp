// What libstdc++ takes from a glibc newer than 2.28, for the shared libraries of a wheel (manylinux.cmake). A name that
// is missing here ends the link.
#include <fcntl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

struct stat;

extern "C" {

// 2.32. False is always right: reference counts are then atomic.
char __libc_single_threaded = 0;

// 2.33; inline functions before. The kernel's structure is glibc's on 64 bits.
int stat(const char* path, struct stat* out) {
    return static_cast<int>(syscall(SYS_newfstatat, AT_FDCWD, path, out, 0));
}
int lstat(const char* path, struct stat* out) {
    return static_cast<int>(syscall(SYS_newfstatat, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW));
}
int fstat64(int file, struct stat* out) {
    return static_cast<int>(syscall(SYS_fstat, file, out));
}

// 2.36. Seeds hash tables and std::random_device; 256 bytes at most are never cut short.
std::uint32_t arc4random() {
    std::uint32_t value = 0;
    while (getrandom(&value, sizeof(value), 0) != sizeof(value)) {
    }
    return value;
}
}
