#include "io/descriptor_message.h"

#include <sys/socket.h>

#include <cstring>

#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// A message of one part with room for one descriptor.
struct Message {
  Message(void* bytes, size_t count) : part{bytes, count} {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = rights;
    header.msg_controllen = sizeof rights;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  iovec part;
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))]{};
  msghdr header{};
};

}  // namespace

long send_with_descriptor(int socket, const void* from, size_t bytes, int fd, int flags) {
  Message message(const_cast<void*>(from), bytes);
  if (fd < 0) {
    message.header.msg_controllen = 0;
  } else {
    cmsghdr* control = CMSG_FIRSTHDR(&message.header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(control), &fd, sizeof fd);
  }
  return sys::sendmsg(socket, &message.header, flags | MSG_NOSIGNAL);
}

long receive_with_descriptor(int socket, void* to, size_t bytes, Descriptor& descriptor, int flags) {
  Message message(to, bytes);
  long n = sys::call(SYS_recvmsg, socket, sys::arg(&message.header), flags | MSG_CMSG_CLOEXEC);
  cmsghdr* control = n >= 0 ? CMSG_FIRSTHDR(&message.header) : nullptr;
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS ||
      control->cmsg_len != CMSG_LEN(sizeof(int)))
    return n;
  int fd;
  std::memcpy(&fd, CMSG_DATA(control), sizeof fd);
  descriptor = Descriptor(fd);
  return n;
}

}  // namespace ustack::io
