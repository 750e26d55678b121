// Opening what USTACK_LINK names, and links over a socket of the caller's.
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/link.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

std::optional<OpenError> open_fds(const LinkSpec& spec, Link* link) {
  Link opened;
  if (auto problem = open_fd(spec.fd, spec.ip, &opened)) return problem;
  for (int fd : spec.more_fds) {
    Link more;
    if (auto problem = open_fd(fd, spec.ip, &more)) return problem;
    opened.add_queue(std::move(more.descriptors()[0]));
  }
  *link = std::move(opened);
  return std::nullopt;
}

}  // namespace

std::optional<OpenError> open_link(const LinkSpec& spec, Link* link, bool* created, bool insists) {
  if (created != nullptr) *created = false;
  switch (spec.scheme) {
    case LinkSpec::Scheme::automatic:
      return open_tun_device("ustack%d", true, link, created, spec.queues, insists);
    case LinkSpec::Scheme::tap:
      return open_tun_device(spec.name, true, link, created, spec.queues, insists);
    case LinkSpec::Scheme::tun:
      return open_tun_device(spec.name, false, link, created, spec.queues, insists);
    case LinkSpec::Scheme::packet:
      return open_packet(spec.name, link, spec.queues, spec.steered);
    case LinkSpec::Scheme::fd:
      return open_fds(spec, link);
  }
  return OpenError{EINVAL, "unknown kind of link"};
}

std::optional<OpenError> open_fd(int fd, bool ip, Link* link) {
  std::string name = "fd:" + std::to_string(fd);
  int type = 0;
  socklen_t length = sizeof type;
  long result = sys::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
  if (result == -EBADF) {
    return OpenError{EBADF, "descriptor " + std::to_string(fd) +
                                " is not open; whoever starts the program must hand a socket down under that "
                                "number, without FD_CLOEXEC"};
  }
  if (result == -ENOTSOCK) {
    return OpenError{ENOTSOCK,
                     "descriptor " + std::to_string(fd) +
                         " is not a socket; it must be a datagram or seqpacket socket that carries one "
                         "frame a message"};
  }
  if (result < 0) {
    return OpenError{static_cast<int>(-result),
                     "can't use descriptor " + std::to_string(fd) +
                         " as a link: " + std::strerror(static_cast<int>(-result))};
  }
  if (type != SOCK_DGRAM && type != SOCK_SEQPACKET) {
    return OpenError{EPROTOTYPE, "descriptor " + std::to_string(fd) +
                                     " is a socket that keeps no message boundaries; it must be of type "
                                     "SOCK_DGRAM or SOCK_SEQPACKET"};
  }
  long copy = sys::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    return OpenError{static_cast<int>(-copy), std::string("can't duplicate descriptor ") +
                                                  std::to_string(fd) + ": " +
                                                  std::strerror(static_cast<int>(-copy))};
  }
  Descriptor own(static_cast<int>(copy));
  long flags = sys::fcntl(own.get(), F_GETFL);
  sys::fcntl(own.get(), F_SETFL, flags | O_NONBLOCK);

  LinkInfo info;
  info.kind = ip ? LinkInfo::Kind::ip : LinkInfo::Kind::ethernet;
  *link = Link(std::move(own), info, 0, true, name);
  return std::nullopt;
}

}  // namespace ustack::io
