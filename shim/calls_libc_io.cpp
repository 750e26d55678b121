// Hooks of calls in which libc, or the kernel on a system call of its own, reads and writes a number: what is
// ours becomes an end outside on that number (escape.h).
#include <cstdio>
#include <cstdlib>

#include "shim/call.h"
#include "shim/escape.h"
#include "shim/hooks.h"

namespace ustack::shim {

namespace {

void hand_to_kernel(int fd) {
  if (!concerns_us(fd)) return;
  Scope scope;
  escape::in_place(fd);
}

bool write_all(int fd, const char* text, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = hook::write(fd, text, bytes);
    if (n < 0) return false;
    text += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

namespace hook {

FILE* fdopen(int fd, const char* mode) {
  hand_to_kernel(fd);
  return real::fdopen(fd, mode);
}

/// Formats by itself, which needs no end outside.
int vdprintf(int fd, const char* format, va_list arguments) {
  char room[512];
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(room, sizeof room, format, arguments);
  char* text = room;
  if (length >= static_cast<int>(sizeof room)) {
    text = static_cast<char*>(malloc(static_cast<size_t>(length) + 1));
    if (text != nullptr) vsnprintf(text, static_cast<size_t>(length) + 1, format, again);
  }
  va_end(again);
  if (length < 0 || text == nullptr) return -1;
  bool written = write_all(fd, text, static_cast<size_t>(length));
  if (text != room) {
    int error = errno;
    free(text);
    errno = error;
  }
  return written ? length : -1;
}

int __vdprintf_chk(int fd, int, const char* format, va_list arguments) {
  return hook::vdprintf(fd, format, arguments);
}

int dprintf(int fd, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = hook::vdprintf(fd, format, arguments);
  va_end(arguments);
  return length;
}

int __dprintf_chk(int fd, int, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = hook::vdprintf(fd, format, arguments);
  va_end(arguments);
  return length;
}

}  // namespace hook
}  // namespace ustack::shim
