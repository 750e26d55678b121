// Hooks that write.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>

#include <algorithm>
#include <climits>
#include <optional>

#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/escaped_peer.h"
#include "shim/hooks.h"
#include "shim/kernel_socket.h"
#include "shim/opening.h"
#include "shim/rights.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

int fail(int code) {
  errno = code;
  return -1;
}

/// What a message's ancillary data asks for.
struct SendControl {
  /// SO_TIMESTAMPING: SOF_TIMESTAMPING_TX_*.
  std::optional<uint32_t> stamps;
  /// Of a datagram, as ip(7) and ipv6(7) have it: which of them counts, the destination says.
  struct OfFamily {
    DatagramOut how;
    /// What it is refused with.
    int error = 0;
  } ipv4, ipv6;
};

/// A datagram's destination may be named as connect(2) doesn't take it: without a family (udp_sendmsg), or
/// for a socket of AF_INET6 as an IPv4 address (udpv6_sendmsg). EINVAL.
Result<RawAddress> as_destination(const SocketFile& file, const RawAddress& to) {
  RawAddress address = to;
  if (to.length < sizeof(sa_family_t)) return Error{EINVAL};
  if (file.dual_stack() == nullptr) {
    if (to.family() == AF_UNSPEC) address.bytes.ss_family = AF_INET;
    return address;
  }
  if (to.family() != AF_INET) return to.family() == AF_INET6 ? address : Result<RawAddress>(Error{EINVAL});
  const Result<SocketAddress> ipv4 = address_to_connect(to);
  if (!ipv4.ok()) return ipv4.error();
  address.length = to_sockaddr({mapped_address(ipv4->address), ipv4->port}, &address.bytes);
  return address;
}

/// Goes to `to`, or to the peer that it is connected with (udp_sendmsg).
Result<size_t> send_datagram(HostLock& lock, SocketFile& file, int fd, UserBytes& from, int flags,
                             const RawAddress& to, const SendControl& control) {
  SocketAddress destination{};
  if (to.length != 0) {
    const Result<RawAddress> named = as_destination(file, to);
    if (!named.ok()) return named.error();
    Result<SocketAddress> remote = choose_remote(file, fd, *named);
    if (!remote.ok()) return remote.error();
    destination = *remote;
  } else if (Result<SocketAddress> peer = file.socket().remote_address(); peer.ok()) {
    destination = *peer;
  }
  const SendControl::OfFamily& wanted = destination.address.is_v6() ? control.ipv6 : control.ipv4;
  if (wanted.error != 0) return Error{wanted.error};
  DatagramOut how = wanted.how;
  if (to.length != 0) how.to = destination;
  if (destination.address.is_v6()) flags &= ~MSG_OOB;  // udpv6_sendmsg doesn't look at it
  if (control.stamps.value_or(0) != 0) return Error{EOPNOTSUPP};
  return file.send_datagram(lock, from, flags, how);
}

template <typename Real>
ssize_t send_once(int fd, Result<UserBytes> from, int flags, const RawAddress& to, Real&& go_real,
                  const SendControl& control = {}) {
  if (!from.ok()) return fail(from.code());
  return on_socket<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Result<size_t> {
        if (file.has_datagrams()) return send_datagram(lock, file, fd, *from, flags, to, control);
        // Without MSG_FASTOPEN a stream takes no notice of an address.
        if ((flags & MSG_FASTOPEN) == 0) return file.send(lock, *from, flags, control.stamps);
        if (is_disconnect(to)) return Error{EOPNOTSUPP};
        Result<SocketAddress> remote = choose_remote(file, fd, to);
        if (!remote.ok()) return remote.error();
        return file.send_fast_open(lock, *from, flags, *remote);
      },
      go_real);
}

// Out of line, so that a descriptor of the kernel's pays for no frame.
template <typename Real>
[[gnu::noinline]] ssize_t send_bytes(int fd, Result<UserBytes> from, int flags, const RawAddress& to,
                                     Real&& go_real) {
  return cancellation::point([&] { return send_once(fd, from, flags, to, go_real); });
}

/// An ip(7) one of a datagram, which a stream takes no notice of (ip_cmsg_send). EINVAL; EFAULT.
Status read_ip_control(const cmsghdr& control, const std::byte* at, DatagramOut& how) {
  const size_t bytes = control.cmsg_len - sizeof control;
  const std::byte* data = at + CMSG_LEN(0);
  auto read_number = [&](int& value) {
    if (bytes == sizeof value) return copy_from_user(&value, data, sizeof value);
    uint8_t narrow = 0;
    if (bytes != sizeof narrow || control.cmsg_type != IP_TOS) return Status(Error{EINVAL});
    Status s = copy_from_user(&narrow, data, sizeof narrow);
    value = narrow;
    return s;
  };
  int value = 0;
  switch (control.cmsg_type) {
    case IP_PKTINFO: {
      in_pktinfo info;
      if (bytes != sizeof info) return Error{EINVAL};
      if (Status s = copy_from_user(&info, data, sizeof info); !s.ok()) return s;
      how.from = IpAddress::from_bytes(Family::ipv4, reinterpret_cast<const std::byte*>(&info.ipi_spec_dst));
      return {};
    }
    case IP_TTL:
      if (Status s = read_number(value); !s.ok()) return s;
      if (value < 1 || value > 255) return Error{EINVAL};
      how.ttl = static_cast<uint8_t>(value);
      return {};
    case IP_TOS:
      if (Status s = read_number(value); !s.ok()) return s;
      if (value < 0 || value > 255) return Error{EINVAL};
      how.tos = static_cast<uint8_t>(value);
      return {};
    default:
      return Error{EINVAL};
  }
}

/// An ipv6(7) one of a datagram (ip6_datagram_send_ctl). `mapped`: an IPv4 address that it is to come from.
/// EINVAL, ENODEV; EFAULT.
Status read_ipv6_control(const cmsghdr& control, const std::byte* at, DatagramOut& how, IpAddress& mapped) {
  const size_t bytes = control.cmsg_len - sizeof control;
  const std::byte* data = at + CMSG_LEN(0);
  if (control.cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info;
    if (bytes < sizeof info) return Error{EINVAL};
    if (Status s = copy_from_user(&info, data, sizeof info); !s.ok()) return s;
    if (info.ipi6_ifindex != 0 && link_index() != 0 &&
        info.ipi6_ifindex != static_cast<unsigned>(link_index()))
      return Error{ENODEV};
    const IpAddress from = unmapped_address(
        IpAddress::from_bytes(Family::ipv6, reinterpret_cast<const std::byte*>(&info.ipi6_addr)));
    (from.is_v4() ? mapped : how.from) = from;
    return from.is_v4() ? Status(Error{EINVAL}) : Status();
  }
  int value;
  if (bytes != sizeof value) return Error{EINVAL};
  if (Status s = copy_from_user(&value, data, sizeof value); !s.ok()) return s;
  switch (control.cmsg_type) {
    case IPV6_HOPLIMIT:
    case IPV6_TCLASS:
      if (value < -1 || value > 255) return Error{EINVAL};
      if (value >= 0) (control.cmsg_type == IPV6_HOPLIMIT ? how.ttl : how.tos) = static_cast<uint8_t>(value);
      return {};
    case IPV6_DONTFRAG:
      if (value < 0 || value > 1) return Error{EINVAL};
      how.dont_fragment = value != 0;
      return {};
    default:
      return Error{EINVAL};
  }
}

/// Ancillary data that a stream may be sent with, as sock_cmsg_send() judges it. EINVAL, EFAULT, EPERM.
Result<SendControl> read_control(const msghdr& header) {
  constexpr uint32_t kRecorded = SOF_TIMESTAMPING_TX_HARDWARE | SOF_TIMESTAMPING_TX_SOFTWARE |
                                 SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK;
  SendControl wanted;
  const auto* at = static_cast<const std::byte*>(header.msg_control);
  size_t left = header.msg_controllen;
  if (left > INT_MAX) return Error{ENOBUFS};
  while (left >= sizeof(cmsghdr)) {
    cmsghdr control;
    if (Status s = copy_from_user(&control, at, sizeof control); !s.ok()) return s.error();
    if (control.cmsg_len < sizeof control || control.cmsg_len > left) return Error{EINVAL};
    if (control.cmsg_level == SOL_SOCKET) {
      if (control.cmsg_type == SO_TIMESTAMPING_OLD || control.cmsg_type == SO_TIMESTAMPING_NEW) {
        uint32_t flags;
        if (control.cmsg_len != CMSG_LEN(sizeof flags)) return Error{EINVAL};
        if (Status s = copy_from_user(&flags, at + CMSG_LEN(0), sizeof flags); !s.ok()) return s.error();
        if ((flags & ~kRecorded) != 0) return Error{EINVAL};
        wanted.stamps = flags;
      } else if (control.cmsg_type != SCM_RIGHTS && control.cmsg_type != SCM_CREDENTIALS) {
        return Error{EINVAL};
      }
    } else if (control.cmsg_level == IPPROTO_IP) {
      if (Status s = read_ip_control(control, at, wanted.ipv4.how); !s.ok()) wanted.ipv4.error = s.code();
    } else if (control.cmsg_level == IPPROTO_IPV6) {
      IpAddress mapped;
      if (Status s = read_ipv6_control(control, at, wanted.ipv6.how, mapped); !s.ok())
        wanted.ipv6.error = s.code();
      if (control.cmsg_type == IPV6_PKTINFO) {
        // To IPv4 this one counts as well (ip_cmsg_send).
        wanted.ipv4.how.from = mapped;
        if (!mapped.is_v4()) wanted.ipv4.error = EINVAL;
      }
    } else if (control.cmsg_level == IPPROTO_UDP) {
      wanted.ipv4.error = wanted.ipv6.error = EINVAL;  // UDP_SEGMENT
    }
    size_t step = std::min(CMSG_ALIGN(control.cmsg_len), left);
    at += step;
    left -= step;
  }
  return wanted;
}

ssize_t send_message(int fd, const msghdr* message, int flags) {
  if ((flags & static_cast<int>(0x80000000U)) != 0)
    return fail(EINVAL);  // MSG_CMSG_COMPAT is the kernel's own
  Result<msghdr> header = get_user(message);
  if (!header.ok()) return fail(header.code());
  if (header->msg_name != nullptr && header->msg_namelen > INT_MAX) return fail(EINVAL);
  RawAddress to;
  if (header->msg_name != nullptr) {
    socklen_t length = std::min<socklen_t>(header->msg_namelen, sizeof(sockaddr_storage));
    Result<RawAddress> read = read_address(static_cast<const sockaddr*>(header->msg_name), length);
    if (!read.ok()) return fail(read.code());
    to = *read;
  }
  Result<UserBytes> from = UserBytes::parts(header->msg_iov, header->msg_iovlen, EMSGSIZE);
  if (!from.ok()) return fail(from.code());
  Result<SendControl> control = read_control(*header);
  if (!control.ok()) return fail(control.code());
  return send_once(
      fd, from, flags, to, [&] { return real::sendmsg(fd, message, flags); }, *control);
}

/// A message over a socket of the kernel's that may carry descriptors of ours.
ssize_t send_rights(int fd, const msghdr* message, int flags) {
  OutgoingRights rights(message);
  return rights.error() != 0 ? fail(rights.error()) : real::sendmsg(fd, rights.message(), flags);
}

template <typename Real>
ssize_t write_at(int fd, const iovec* parts, int count, off64_t offset, int flags, Real&& go_real) {
  constexpr int kKnown = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;
  if (offset != -1) return fail(offset < 0 ? EINVAL : ESPIPE);
  if ((flags & ~kKnown) != 0) return fail(EOPNOTSUPP);
  return send_bytes(fd, UserBytes::parts(parts, static_cast<unsigned>(count)),
                    (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0, {}, go_real);
}

/// sendfile(2) to a socket of ours: straight from the file into the send buffer.
template <typename Real>
ssize_t send_file(int out, int in, off64_t* offset, size_t bytes, Real&& go_real) {
  off64_t position = 0;
  if (offset != nullptr) {
    Result<off64_t> from = get_user(offset);
    if (!from.ok()) return fail(from.code());
    position = *from;
  }
  if (FdTable::look(in) != nullptr) return fail(EINVAL);
  long mode = io::sys::fcntl(in, F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) == O_WRONLY || (mode & O_PATH) != 0) return fail(EBADF);
  if (io::sys::call(SYS_lseek, in, 0, SEEK_CUR) < 0) return fail(offset != nullptr ? ESPIPE : EINVAL);
  if (position < 0) return fail(EINVAL);
  bytes = std::min(bytes, UserBytes::kMaxBytes);
  if (bytes == 0) return 0;
  ssize_t n = on_socket<HostLock::Transfer>(
      out,
      [&](HostLock& lock, SocketFile& file) {
        return file.send_file(lock, in, offset != nullptr ? &position : nullptr, bytes);
      },
      go_real);
  if (n > 0 && offset != nullptr && concerns_us(out))
    if (Status s = put_user(offset, position); !s.ok()) return fail(s.code());
  return n;
}

/// Apart from the hook, which needs no frame for what isn't ours.
[[gnu::noinline]] ssize_t write_ours(int fd, const void* from, size_t bytes) {
  if (Scope::inside()) return real::write(fd, from, bytes);
  return send_bytes(fd, UserBytes::buffer(from, bytes), 0, {}, [=] { return real::write(fd, from, bytes); });
}

}  // namespace

namespace hook {

ssize_t write(int fd, const void* from, size_t bytes) {
  if (FdTable::look(fd) == nullptr) [[likely]]
    return real::write(fd, from, bytes);
  return write_ours(fd, from, bytes);
}

ssize_t writev(int fd, const iovec* parts, int count) {
  auto go_real = [&] { return real::writev(fd, parts, count); };
  if (!concerns_us(fd)) return go_real();
  return send_bytes(fd, UserBytes::parts(parts, static_cast<unsigned>(count)), 0, {}, go_real);
}

ssize_t pwritev2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  auto go_real = [&] { return real::pwritev2(fd, parts, count, offset, flags); };
  return concerns_us(fd) ? write_at(fd, parts, count, offset, flags, go_real) : go_real();
}

ssize_t pwritev64v2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  auto go_real = [&] { return real::pwritev64v2(fd, parts, count, offset, flags); };
  return concerns_us(fd) ? write_at(fd, parts, count, offset, flags, go_real) : go_real();
}

ssize_t send(int fd, const void* from, size_t bytes, int flags) {
  auto go_real = [&] { return real::send(fd, from, bytes, flags); };
  if (!concerns_us(fd)) return go_real();
  return send_bytes(fd, UserBytes::buffer(from, bytes), flags, {}, go_real);
}

ssize_t sendto(int fd, const void* from, size_t bytes, int flags, const sockaddr* address, socklen_t length) {
  auto go_real = [&]() -> ssize_t {
    if (opening::refuses_to_send(flags)) return fail(EOPNOTSUPP);
    if (address != nullptr && opening::is_used() && escaped_peer::is_end(fd)) {
      const Result<RawAddress> unheeded = read_address(address, length);
      return unheeded.ok() ? real::send(fd, from, bytes, flags) : fail(unheeded.code());
    }
    return real::sendto(fd, from, bytes, flags, address, length);
  };
  if (!concerns_us(fd)) return go_real();
  Result<RawAddress> to = address != nullptr ? read_address(address, length) : RawAddress{};
  if (!to.ok()) return fail(to.code());
  return send_bytes(fd, UserBytes::buffer(from, bytes), flags, *to, go_real);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  if (!concerns_us(fd))
    return OutgoingRights::possible(message) ? send_rights(fd, message, flags)
                                             : real::sendmsg(fd, message, flags);
  return cancellation::point([&] { return send_message(fd, message, flags); });
}

static int send_messages(int fd, mmsghdr* messages, unsigned count, int flags, bool ours) {
  unsigned done = 0;
  for (; done < count; ++done) {
    int saved = errno;
    ssize_t n = ours ? send_message(fd, &messages[done].msg_hdr, flags)
                     : hook::sendmsg(fd, &messages[done].msg_hdr, flags);
    if (n < 0 && done == 0) return -1;
    if (n < 0 || !put_user(&messages[done].msg_len, static_cast<unsigned>(n)).ok()) {
      errno = saved;
      break;
    }
  }
  return static_cast<int>(done);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  count = std::min(count, static_cast<unsigned>(UserBytes::kMaxParts));
  const bool ours = concerns_us(fd);
  if (!ours && std::none_of(messages, messages + count,
                            [](const mmsghdr& each) { return OutgoingRights::possible(&each.msg_hdr); }))
    return real::sendmmsg(fd, messages, count, flags);
  if (!ours) return send_messages(fd, messages, count, flags, false);
  // Once for all of them: how many have been sent is not lost.
  return cancellation::point([&] { return send_messages(fd, messages, count, flags, true); });
}

ssize_t sendfile(int out, int in, off_t* offset, size_t bytes) {
  auto go_real = [&] { return real::sendfile(out, in, offset, bytes); };
  return concerns_us(out) ? send_file(out, in, offset, bytes, go_real) : go_real();
}

ssize_t sendfile64(int out, int in, off64_t* offset, size_t bytes) {
  auto go_real = [&] { return real::sendfile64(out, in, offset, bytes); };
  return concerns_us(out) ? send_file(out, in, offset, bytes, go_real) : go_real();
}

}  // namespace hook

}  // namespace ustack::shim
