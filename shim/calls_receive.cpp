// Hooks that read.
#include <linux/fs.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <optional>

#include "io/clock.h"
#include "shim/ancillary.h"
#include "shim/call.h"
#include "shim/escaped_peer.h"
#include "shim/hooks.h"
#include "shim/opening.h"
#include "shim/rights.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

int fail(int code) {
  errno = code;
  return -1;
}

/// What the kernel's `call` has read: the end of a connection that a process outside of its host has may be
/// an error there. `wants()`: bytes were asked for.
template <typename Wants, typename Call>
ssize_t from_kernel(int fd, int flags, Wants&& wants, Call&& call) {
  if ((flags & MSG_ERRQUEUE) != 0 && opening::is_used() && escaped_peer::is_end(fd)) return fail(EAGAIN);
  const ssize_t n = call();
  if (n != 0 || !opening::is_used() || !wants()) [[likely]]
    return n;
  return escaped_peer::explain_end(fd);
}

bool want(const iovec* parts, size_t count) {
  return std::any_of(parts, parts + count, [](const iovec& part) { return part.iov_len > 0; });
}

template <typename Real>
ssize_t receive(int fd, Result<UserBytes> to, int flags, Real&& go_real,
                std::optional<SocketAddress>* source = nullptr) {
  if (!to.ok()) return fail(to.code());
  return on_socket_cancellable<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) {
        SocketFile::Received received;
        if (!file.has_datagrams()) return file.receive(lock, *to, flags, received);
        Result<size_t> n = file.receive_datagram(lock, *to, flags, received);
        if (source != nullptr && received.datagram) *source = received.datagram->source;
        return n;
      },
      go_real);
}

/// read(2) and readv(2), which have no flags and find a request for nothing fulfilled. Out of line, so that a
/// descriptor of the kernel's pays for no frame.
template <typename Real>
[[gnu::noinline]] ssize_t read_into(int fd, Result<UserBytes> to, int flags, Real&& go_real) {
  if (to.ok() && to->left() == 0) return 0;
  return receive(fd, to, flags, go_real);
}

/// The address of a sender, which a stream doesn't have: of length 0 (recvfrom(2) where it asks for one).
Status write_no_address(socklen_t* length) {
  Result<socklen_t> room = get_user(length);
  if (!room.ok()) return room.error();
  if (*room > INT_MAX) return Error{EINVAL};
  return put_user(length, socklen_t{0});
}

/// tcp_inq_hint: what is left, where the stream's end counts too, so that the next read finds it.
int bytes_unread(Socket& socket) {
  Result<int> bytes = socket.ioctl_value(SIOCINQ);
  int left = bytes.ok() ? *bytes : 0;
  return (socket.readiness() & ready::kRdHup) != 0 ? left + 1 : left;
}

ssize_t receive_message(int fd, msghdr* message, int flags) {
  if ((flags & static_cast<int>(0x80000000U)) != 0)
    return fail(EINVAL);  // MSG_CMSG_COMPAT is the kernel's own
  Result<msghdr> header = get_user(message);
  if (!header.ok()) return fail(header.code());
  if (header->msg_name != nullptr && header->msg_namelen > INT_MAX) return fail(EINVAL);
  Result<UserBytes> to = UserBytes::parts(header->msg_iov, header->msg_iovlen, EMSGSIZE);
  if (!to.ok()) return fail(to.code());
  auto write_back = [&](const Ancillary& told, const std::optional<Report>& report,
                        const std::optional<DatagramArrival>& datagram, int message_flags) -> Status {
    Status s = told.size() > 0 ? told.copy_to(header->msg_control) : Status();
    if (s.ok() && header->msg_name != nullptr)
      s = datagram ? write_address(datagram->source, static_cast<sockaddr*>(header->msg_name),
                                   &message->msg_namelen)
          : report && (report->is_icmp() || report->what.ee_origin == SO_EE_ORIGIN_LOCAL)
              ? write_address(report->about, static_cast<sockaddr*>(header->msg_name), &message->msg_namelen)
              : put_user(&message->msg_namelen, socklen_t{0});
    message_flags |= told.flags() | (flags & MSG_CMSG_CLOEXEC);
    if (s.ok()) s = put_user(&message->msg_flags, message_flags);
    if (s.ok()) s = put_user(&message->msg_controllen, decltype(message->msg_controllen){told.size()});
    return s;
  };
  return on_socket<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Result<size_t> {
        SocketFile::Received received;
        Result<size_t> n = file.has_datagrams() ? file.receive_datagram(lock, *to, flags, received)
                                                : file.receive(lock, *to, flags, received);
        if (!n.ok()) return n;
        const TimeStamping times = file.socket().time_stamping();
        const bool ipv6 = file.dual_stack() != nullptr;
        if (received.report) received.report->about = file.shown(received.report->about);
        std::optional<int> unread;
        if (file.socket().tells_unread() && (flags & (MSG_OOB | MSG_ERRQUEUE)) == 0)
          unread = bytes_unread(file.socket());
        Status s = unlocked(lock, [&] {
          Ancillary told(header->msg_control != nullptr ? header->msg_controllen : 0);
          if (received.report) told.put_report(times, *received.report, received.payload, ipv6);
          if (received.arrived) told.put_arrival(times, *received.arrived);
          if (received.datagram) told.put_datagram(*received.datagram);
          if (unread) told.put(IPPROTO_TCP, TCP_CM_INQ, &*unread, sizeof *unread);
          return write_back(told, received.report, received.datagram, received.message_flags);
        });
        return s.ok() ? n : Result<size_t>(s.error());
      },
      [&] { return real::recvmsg(fd, message, flags); });
}

/// recvfrom(2) of the error queue, whose reports may have an address.
ssize_t receive_report_from(int fd, void* to, size_t bytes, int flags, sockaddr* address, socklen_t* length) {
  Result<socklen_t> room = get_user(length);
  if (!room.ok()) return fail(room.code());
  iovec part{.iov_base = to, .iov_len = bytes};
  msghdr message{};
  message.msg_name = address;
  message.msg_namelen = *room;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t n = receive_message(fd, &message, flags);
  if (n < 0) return n;
  Status s = put_user(length, message.msg_namelen);
  return s.ok() ? n : fail(s.code());
}

int receive_messages(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  Instant deadline = kNever;
  if (timeout != nullptr) {
    Result<timespec> limit = get_user(timeout);
    if (!limit.ok()) return fail(limit.code());
    if (limit->tv_sec < 0 || limit->tv_nsec < 0 || limit->tv_nsec >= 1'000'000'000) return fail(EINVAL);
    deadline = io::now() + std::min(Duration(std::chrono::seconds(limit->tv_sec)), Duration(24h * 365)) +
               Duration(limit->tv_nsec);
  }
  count = std::min(count, static_cast<unsigned>(UserBytes::kMaxParts));
  unsigned done = 0;
  while (done < count) {
    int saved = errno;
    ssize_t n = receive_message(fd, &messages[done].msg_hdr, flags & ~MSG_WAITFORONE);
    if (n < 0) {
      if (done == 0) return -1;
      errno = saved;
      break;
    }
    if (!put_user(&messages[done].msg_len, static_cast<unsigned>(n)).ok()) {
      if (done == 0) return fail(EFAULT);
      break;
    }
    ++done;
    if ((flags & MSG_WAITFORONE) != 0) flags |= MSG_DONTWAIT;
    // The limit is looked at after each message only (recvmmsg(2), BUGS).
    if (timeout != nullptr && io::now() >= deadline) break;
    if ((messages[done - 1].msg_hdr.msg_flags & MSG_OOB) != 0) break;
  }
  if (timeout != nullptr) {
    Duration left = std::max(deadline - io::now(), Duration(0));
    timespec rest{.tv_sec = static_cast<time_t>(left / 1s),
                  .tv_nsec = static_cast<long>((left % 1s).count())};
    (void)put_user(timeout, rest);
  }
  return static_cast<int>(done);
}

template <typename Real>
ssize_t read_at(int fd, const iovec* parts, int count, off64_t offset, int flags, Real&& go_real) {
  constexpr int kKnown = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;
  if (offset != -1) return fail(offset < 0 ? EINVAL : ESPIPE);
  if ((flags & ~kKnown) != 0) return fail(EOPNOTSUPP);
  return read_into(fd, UserBytes::parts(parts, static_cast<unsigned>(count)),
                   (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0, go_real);
}

/// Apart from the hook, which needs no frame for what isn't ours.
[[gnu::noinline]] ssize_t read_ours(int fd, void* to, size_t bytes) {
  if (Scope::inside()) return real::read(fd, to, bytes);
  return read_into(fd, UserBytes::buffer(to, bytes), 0, [=] { return real::read(fd, to, bytes); });
}

}  // namespace

namespace hook {

ssize_t read(int fd, void* to, size_t bytes) {
  if (FdTable::look(fd) == nullptr) [[likely]]
    return from_kernel(
        fd, 0, [=] { return bytes > 0; }, [=] { return real::read(fd, to, bytes); });
  return read_ours(fd, to, bytes);
}

ssize_t __read_chk(int fd, void* to, size_t bytes, size_t room) {
  if (bytes > room || !concerns_us(fd)) return real::__read_chk(fd, to, bytes, room);
  return hook::read(fd, to, bytes);
}

ssize_t readv(int fd, const iovec* parts, int count) {
  auto go_real = [&] {
    return from_kernel(
        fd, 0, [&] { return want(parts, static_cast<size_t>(count)); },
        [&] { return real::readv(fd, parts, count); });
  };
  if (!concerns_us(fd)) return go_real();
  return read_into(fd, UserBytes::parts(parts, static_cast<unsigned>(count)), 0, go_real);
}

ssize_t preadv2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  auto go_real = [&] { return real::preadv2(fd, parts, count, offset, flags); };
  return concerns_us(fd) ? read_at(fd, parts, count, offset, flags, go_real) : go_real();
}

ssize_t preadv64v2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  auto go_real = [&] { return real::preadv64v2(fd, parts, count, offset, flags); };
  return concerns_us(fd) ? read_at(fd, parts, count, offset, flags, go_real) : go_real();
}

ssize_t recv(int fd, void* to, size_t bytes, int flags) {
  auto go_real = [&] {
    return from_kernel(
        fd, flags, [&] { return bytes > 0; }, [&] { return real::recv(fd, to, bytes, flags); });
  };
  if (!concerns_us(fd)) return go_real();
  return receive(fd, UserBytes::buffer(to, bytes), flags, go_real);
}

ssize_t __recv_chk(int fd, void* to, size_t bytes, size_t room, int flags) {
  if (bytes > room || !concerns_us(fd)) return real::__recv_chk(fd, to, bytes, room, flags);
  return hook::recv(fd, to, bytes, flags);
}

ssize_t recvfrom(int fd, void* to, size_t bytes, int flags, sockaddr* address, socklen_t* length) {
  auto go_real = [&] {
    return from_kernel(
        fd, flags, [&] { return bytes > 0; },
        [&]() -> ssize_t {
          if (address == nullptr || !opening::is_used() || !escaped_peer::is_end(fd))
            return real::recvfrom(fd, to, bytes, flags, address, length);
          const ssize_t n = real::recv(fd, to, bytes, flags);
          const Status s = n >= 0 ? write_no_address(length) : Status();
          return s.ok() ? n : fail(s.code());
        });
  };
  if (!concerns_us(fd)) return go_real();
  if ((flags & MSG_ERRQUEUE) != 0 && address != nullptr)
    return receive_report_from(fd, to, bytes, flags, address, length);
  std::optional<SocketAddress> source;
  ssize_t n = receive(fd, UserBytes::buffer(to, bytes), flags, go_real, &source);
  if (n < 0 || address == nullptr || !concerns_us(fd)) return n;
  Status s = source ? write_address(*source, address, length) : write_no_address(length);
  return s.ok() ? n : fail(s.code());
}

ssize_t __recvfrom_chk(int fd, void* to, size_t bytes, size_t room, int flags, sockaddr* address,
                       socklen_t* length) {
  if (bytes > room || !concerns_us(fd))
    return real::__recvfrom_chk(fd, to, bytes, room, flags, address, length);
  return hook::recvfrom(fd, to, bytes, flags, address, length);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  if (!concerns_us(fd)) {
    ssize_t n = from_kernel(
        fd, flags, [&] { return want(message->msg_iov, message->msg_iovlen); },
        [&] { return real::recvmsg(fd, message, flags); });
    if (n >= 0) forget_received(*message);
    if (n >= 0 && message->msg_name != nullptr && opening::is_used() && escaped_peer::is_end(fd))
      message->msg_namelen = 0;
    return n;
  }
  return cancellation::point([&] { return receive_message(fd, message, flags); });
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (!concerns_us(fd)) {
    int received = real::recvmmsg(fd, messages, count, flags, timeout);
    for (int i = 0; i < received; ++i) forget_received(messages[i].msg_hdr);
    return received;
  }
  // Once for all of them: what has been received is not lost.
  return cancellation::point([&] { return receive_messages(fd, messages, count, flags, timeout); });
}

int sockatmark(int fd) {
  auto go_real = [&] { return real::sockatmark(fd); };
  if (!concerns_us(fd)) return go_real();
  return on_socket<HostLock::Transfer>(
      fd, [&](HostLock&, SocketFile& file) { return file.socket().ioctl_value(SIOCATMARK); }, go_real);
}

}  // namespace hook

}  // namespace ustack::shim
