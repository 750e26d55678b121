// What getsockopt and setsockopt say to every option of a fresh socket: the kernel's own answers
// (Linux 6.18), by which the library is measured. Where it refuses what Linux has, that is in the table too.
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <climits>

#include "tests/api/support.h"

namespace api {
namespace {

/// A value that is not compared.
constexpr int kAny = INT_MIN + 4711;
/// Without CAP_NET_ADMIN it is refused with EPERM or EACCES.
constexpr int kPrivileged = 1;
/// The library refuses what would turn it on, with ENOPROTOOPT, ENODEV or EINVAL, and never takes it in vain.
constexpr int kRefused = 2;

struct Option {
  int level, name;
  /// getsockopt of 4 bytes: errno, value; and the length when there is room for 300.
  int error, value;
  socklen_t length;
  /// setsockopt to 0, 1, 2, -1: errno.
  int set[4];
  /// The value after it was set to 1.
  int after;
  /// setsockopt of one byte, and of none: errno.
  int set_byte, set_nothing;
  int flags = 0;
};

// A row a line.
// clang-format off
const Option kOptions[] = {
    {SOL_SOCKET, SO_DEBUG, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_REUSEADDR, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TYPE, 0, 1, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_ERROR, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_DONTROUTE, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_BROADCAST, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_SNDBUF, 0, kAny, 4, {0, 0, 0, 0}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_RCVBUF, 0, kAny, 4, {0, 0, 0, 0}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_OOBINLINE, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_NO_CHECK, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PRIORITY, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_LINGER, 0, 0, 8, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_BSDCOMPAT, 0, 0, 4, {0, 0, 0, 0}, 0, EINVAL, EINVAL},
    {SOL_SOCKET, SO_REUSEPORT, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PASSCRED, EOPNOTSUPP, kAny, 0, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PEERCRED, 0, 0, 12, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_RCVLOWAT, 0, 1, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_SNDLOWAT, 0, 1, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_RCVTIMEO, 0, 0, 16, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_SNDTIMEO, 0, 0, 16, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_BINDTODEVICE, 0, kAny, 0, {0, ENODEV, ENODEV, ENODEV}, kAny, ENODEV, 0},
    {SOL_SOCKET, SO_ATTACH_FILTER, 0, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_DETACH_FILTER, ENOPROTOOPT, kAny, 0, {ENOENT, ENOENT, ENOENT, ENOENT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PEERNAME, ENOTCONN, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TIMESTAMP, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_ACCEPTCONN, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_SNDBUFFORCE, ENOPROTOOPT, kAny, 0, {0, 0, 0, 0}, kAny, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_RCVBUFFORCE, ENOPROTOOPT, kAny, 0, {0, 0, 0, 0}, kAny, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_PASSSEC, EOPNOTSUPP, kAny, 0, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TIMESTAMPNS_OLD, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_MARK, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_TIMESTAMPING_OLD, 0, 0, 8, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PROTOCOL, 0, 6, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_DOMAIN, 0, 2, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_RXQ_OVFL, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_WIFI_STATUS, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PEEK_OFF, 0, -1, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_NOFCS, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_LOCK_FILTER, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL, kRefused},
    {SOL_SOCKET, SO_SELECT_ERR_QUEUE, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_BUSY_POLL, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_INCOMING_CPU, 0, -1, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_ATTACH_BPF, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EBADF}, kAny, EINVAL, EINVAL, kRefused},
    {SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EBADF}, kAny, EINVAL, EINVAL, kRefused},
    {SOL_SOCKET, SO_CNX_ADVICE, ENOPROTOOPT, kAny, 0, {0, 0, 0, 0}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_MEMINFO, 0, 0, 36, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_INCOMING_NAPI_ID, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_COOKIE, EINVAL, kAny, 8, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PEERGROUPS, ENODATA, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_ZEROCOPY, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TXTIME, 0, 0, 8, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL, kRefused},
    {SOL_SOCKET, SO_BINDTOIFINDEX, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL, kRefused},
    {SOL_SOCKET, SO_TIMESTAMP_NEW, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TIMESTAMPNS_NEW, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_TIMESTAMPING_NEW, 0, 0, 8, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, SO_RCVTIMEO_NEW, 0, 0, 16, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_SNDTIMEO_NEW, 0, 0, 16, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, SO_PREFER_BUSY_POLL, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, SO_BUSY_POLL_BUDGET, ENOPROTOOPT, kAny, 0, {0, 0, 0, EINVAL}, kAny, EINVAL, EINVAL, kPrivileged},
    {SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, EINVAL, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, 72 /* SO_BUF_LOCK */, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, 73 /* SO_RESERVE_MEM */, 0, 0, 4, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, 74 /* SO_TXREHASH */, 0, 1, 4, {0, 0, EINVAL, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, 75 /* SO_RCVMARK */, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, 76, EOPNOTSUPP, kAny, 0, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, 77, ENODATA, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, 80, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {SOL_SOCKET, 82, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {SOL_SOCKET, 83, EOPNOTSUPP, kAny, 0, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_TOS, 0, 0, 4, {0, 0, 0, 0}, 0, 0, 0},
    {IPPROTO_IP, IP_TTL, 0, 64, 4, {EINVAL, 0, 0, 0}, 1, 0, EINVAL},
    {IPPROTO_IP, IP_HDRINCL, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, ENOPROTOOPT, ENOPROTOOPT},
    {IPPROTO_IP, IP_OPTIONS, 0, kAny, 0, {0, 0, EINVAL, EINVAL}, 1, 0, 0, kRefused},
    {IPPROTO_IP, IP_ROUTER_ALERT, 0, 0, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_RECVOPTS, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_RETOPTS, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_PKTINFO, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_PKTOPTIONS, 0, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, ENOPROTOOPT, ENOPROTOOPT},
    {IPPROTO_IP, IP_MTU_DISCOVER, 0, 1, 4, {0, 0, 0, EINVAL}, 1, 0, 0},
    {IPPROTO_IP, IP_RECVERR, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_RECVTTL, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_RECVTOS, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_MTU, ENOTCONN, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, ENOPROTOOPT, ENOPROTOOPT},
    {IPPROTO_IP, IP_FREEBIND, 0, 0, 4, {0, 0, 0, 0}, 1, 0, EINVAL},
    {IPPROTO_IP, IP_IPSEC_POLICY, ENOPROTOOPT, kAny, 0, {EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP}, kAny, EOPNOTSUPP, EMSGSIZE, kPrivileged},
    {IPPROTO_IP, IP_XFRM_POLICY, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EMSGSIZE, kPrivileged},
    {IPPROTO_IP, IP_PASSSEC, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_TRANSPARENT, 0, 0, 4, {0, 0, 0, 0}, 1, 0, EINVAL, kPrivileged},
    {IPPROTO_IP, IP_ORIGDSTADDR, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_MINTTL, 0, 0, 4, {0, 0, 0, EINVAL}, 1, 0, EINVAL},
    {IPPROTO_IP, IP_NODEFRAG, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, ENOPROTOOPT, ENOPROTOOPT},
    {IPPROTO_IP, IP_CHECKSUM, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, 0, 4, {0, 0, 0, 0}, 1, 0, 0},
    {IPPROTO_IP, IP_RECVFRAGSIZE, 0, 0, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_RECVERR_RFC4884, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, 0, 0},
    {IPPROTO_IP, IP_MULTICAST_IF, 0, 0, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_MULTICAST_TTL, 0, 1, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_MULTICAST_LOOP, 0, 1, 4, {0, 0, 0, 0}, 1, 0, EINVAL},
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, ENOPROTOOPT, kAny, 0, {EPROTO, EPROTO, EPROTO, EPROTO}, kAny, EPROTO, EPROTO},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, ENOPROTOOPT, kAny, 0, {EPROTO, EPROTO, EPROTO, EPROTO}, kAny, EPROTO, EPROTO},
    {IPPROTO_IP, IP_UNBLOCK_SOURCE, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_BLOCK_SOURCE, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_MSFILTER, EINVAL, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_JOIN_GROUP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_BLOCK_SOURCE, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_UNBLOCK_SOURCE, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_LEAVE_GROUP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, MCAST_MSFILTER, EINVAL, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, IP_MULTICAST_ALL, 0, 1, 4, {0, 0, EINVAL, EINVAL}, 1, 0, EINVAL},
    {IPPROTO_IP, IP_UNICAST_IF, 0, 0, 4, {0, EADDRNOTAVAIL, EADDRNOTAVAIL, EADDRNOTAVAIL}, kAny, EINVAL, EINVAL},
    {IPPROTO_IP, 51, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_IP, 52, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, ENOPROTOOPT, ENOPROTOOPT},
    {IPPROTO_TCP, TCP_NODELAY, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_MAXSEG, 0, 536, 4, {0, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_CORK, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_KEEPIDLE, 0, 7200, 4, {EINVAL, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_KEEPINTVL, 0, 75, 4, {EINVAL, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_KEEPCNT, 0, 9, 4, {EINVAL, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_SYNCNT, 0, 6, 4, {EINVAL, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_LINGER2, 0, 60, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, kAny, 4, {0, 0, 0, 0}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_QUICKACK, 0, 1, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_CONGESTION, 0, kAny, 16, {ENOENT, ENOENT, ENOENT, ENOENT}, kAny, ENOENT, EINVAL},
    {IPPROTO_TCP, TCP_MD5SIG, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_THIN_DUPACK, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 0, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_REPAIR, 0, 0, 4, {0, 0, EINVAL, 0}, 1, EINVAL, EINVAL, kPrivileged},
    {IPPROTO_TCP, TCP_REPAIR_QUEUE, EINVAL, kAny, 0, {EPERM, EPERM, EPERM, EPERM}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_QUEUE_SEQ, EINVAL, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, 22, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_FASTOPEN, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_TIMESTAMP, 0, kAny, 4, {EPERM, EPERM, EPERM, EPERM}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 0, 4, {0, 0, 0, 0}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_SAVED_SYN, 0, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_REPAIR_WINDOW, EINVAL, kAny, 0, {EPERM, EPERM, EPERM, EPERM}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, 32, ENOPROTOOPT, kAny, 0, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, EINVAL, kAny, 0, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_INQ, 0, 0, 4, {0, 0, EINVAL, EINVAL}, 1, EINVAL, EINVAL},
    {IPPROTO_TCP, TCP_TX_DELAY, 0, 0, 4, {0, 0, 0, EINVAL}, 1, EINVAL, EINVAL, kRefused},
    {IPPROTO_TCP, 44, 0, 120000, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, 45, 0, 200000, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, 46, 0, 200000, 4, {EINVAL, EINVAL, EINVAL, EINVAL}, kAny, EINVAL, EINVAL},
    {IPPROTO_TCP, 43, 0, 0, 4, {ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT, ENOPROTOOPT}, kAny, EINVAL, EINVAL},
};
// clang-format on

int error_of(int result) { return result == 0 ? 0 : errno; }

void expect_error(const Option& option, int expected, int got, const std::string& what) {
  if (got == expected) return;
  if ((option.flags & kPrivileged) != 0 && (got == EPERM || got == EACCES)) return;
  if ((option.flags & kRefused) != 0 && under_library() &&
      (got == ENOPROTOOPT || got == ENODEV || got == EINVAL))
    return;
  ADD_FAILURE() << what << ": " << strerrorname_np(got) << " and not " << strerrorname_np(expected);
}

class OptionTable : public testing::TestWithParam<Option> {};

TEST_P(OptionTable, AnswersAsLinux) {
  const Option& option = GetParam();
  std::byte value[300] = {};
  socklen_t length = 4;
  int error = error_of(getsockopt(tcp(), option.level, option.name, value, &length));
  expect_error(option, option.error, error, "getsockopt");
  int number = 0;
  memcpy(&number, value, sizeof number);
  if (error == 0 && option.value != kAny) {
    EXPECT_EQ(number, option.value);
  }
  length = sizeof value;
  if (getsockopt(tcp(), option.level, option.name, value, &length) == 0 &&
      (error == 0 || option.length != 0)) {
    EXPECT_EQ(length, option.length);
  }
  constexpr int kValues[] = {0, 1, 2, -1};
  for (int i = 0; i < 4; ++i) {
    Fd fd = tcp();
    error = error_of(set_option(fd, option.level, option.name, kValues[i]));
    expect_error(option, option.set[i], error, "setsockopt to " + std::to_string(kValues[i]));
    if (kValues[i] == 1 && error == 0 && option.after != kAny) {
      EXPECT_EQ(get_option(fd, option.level, option.name), option.after);
    }
  }
  char one = 1;
  expect_error(option, option.set_byte, error_of(setsockopt(tcp(), option.level, option.name, &one, 1)),
               "setsockopt of a byte");
  expect_error(option, option.set_nothing, error_of(setsockopt(tcp(), option.level, option.name, &one, 0)),
               "setsockopt of nothing");
}

INSTANTIATE_TEST_SUITE_P(All, OptionTable, testing::ValuesIn(kOptions), [](const auto& each) {
  const char* level = each.param.level == SOL_SOCKET   ? "Socket"
                      : each.param.level == IPPROTO_IP ? "Ip"
                                                       : "Tcp";
  return level + std::to_string(each.param.name);
});

TEST(OptionTable, WhatIsNotInItIsUnknown) {
  for (int level : {int{SOL_SOCKET}, int{IPPROTO_IP}, int{IPPROTO_TCP}}) {
    for (int name = 101; name < 200; ++name) {
      if (level == IPPROTO_IP && name >= 128) break;  // other protocols' tables
      EXPECT_FAILS(ENOPROTOOPT, set_option(tcp(), level, name, 1));
    }
  }
}

// --- what some of them do ---

TEST(OptionEffects, CookiesAreUniqueAndStay) {
  Fd a = tcp(), b = tcp();
  auto cookie = get_option<uint64_t>(a, SOL_SOCKET, SO_COOKIE);
  EXPECT_NE(cookie, 0U);
  EXPECT_EQ(get_option<uint64_t>(a, SOL_SOCKET, SO_COOKIE), cookie);
  EXPECT_NE(get_option<uint64_t>(b, SOL_SOCKET, SO_COOKIE), cookie);
}

TEST(OptionEffects, NamespaceCookieIsTheSameForAll) {
  constexpr int kNamespaceCookie = 71;
  Fd a = tcp(), b = tcp();
  EXPECT_EQ(get_option<uint64_t>(a, SOL_SOCKET, kNamespaceCookie),
            get_option<uint64_t>(b, SOL_SOCKET, kNamespaceCookie));
}

TEST(OptionEffects, PeerName) {
  Fd fd = connected("echo");
  EXPECT_EQ(get_option<sockaddr_in>(fd, SOL_SOCKET, SO_PEERNAME).sin_port, peer().in.sin_port);
  char more[sizeof(sockaddr_storage)];
  socklen_t length = Address::size + 1;
  EXPECT_FAILS(EINVAL, getsockopt(fd, SOL_SOCKET, SO_PEERNAME, more, &length));
}

TEST(OptionEffects, PeekOffsetMovesOnAndBack) {
  Fd fd = connected("send 10");
  char byte[4];
  ASSERT_EQ(recv(fd, byte, 1, MSG_PEEK | MSG_WAITALL), 1);
  while (true) {
    int there = 0;
    ASSERT_WORKS(ioctl(fd, FIONREAD, &there));
    if (there == 10) break;
    poll(nullptr, 0, 1);
  }
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_PEEK_OFF, 2));
  ASSERT_EQ(recv(fd, byte, 3, MSG_PEEK), 3);
  EXPECT_EQ(std::string(byte, 3), pattern(3, 2));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_PEEK_OFF), 5);
  ASSERT_EQ(recv(fd, byte, 1, MSG_PEEK), 1);
  EXPECT_EQ(std::string(byte, 1), pattern(1, 5));
  ASSERT_EQ(recv(fd, byte, 4, 0), 4) << "reads start at the front";
  EXPECT_EQ(std::string(byte, 4), pattern(4, 0));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_PEEK_OFF), 2);
  ASSERT_EQ(recv(fd, byte, 1, MSG_PEEK), 1);
  EXPECT_EQ(std::string(byte, 1), pattern(1, 6));
}

TEST(OptionEffects, InqTellsWhatIsLeft) {
  Fd fd = connected("send 10 sleep 300");
  ASSERT_WORKS(set_option(fd, IPPROTO_TCP, TCP_INQ, 1));
  for (int there = 0; there < 10; poll(nullptr, 0, 1)) ASSERT_WORKS(ioctl(fd, FIONREAD, &there));
  char bytes[4];
  iovec part{bytes, sizeof bytes};
  alignas(cmsghdr) char control[128] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_EQ(recvmsg(fd, &message, 0), 4);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_level, IPPROTO_TCP);
  EXPECT_EQ(header->cmsg_type, TCP_CM_INQ);
  int left = 0;
  memcpy(&left, CMSG_DATA(header), sizeof left);
  EXPECT_EQ(left, 6);
  EXPECT_EQ(message.msg_controllen, CMSG_SPACE(sizeof(int)));
  message.msg_controllen = 0;
  ASSERT_EQ(recvmsg(fd, &message, 0), 4);
  EXPECT_NE(message.msg_flags & MSG_CTRUNC, 0);
  EXPECT_EQ(poll_one(fd, POLLRDHUP), POLLRDHUP);
  message.msg_controllen = sizeof control;
  ASSERT_EQ(recvmsg(fd, &message, 0), 2);
  memcpy(&left, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof left);
  EXPECT_EQ(left, 1) << "the end counts, so that it is read too";
}

TEST(OptionEffects, PortRangeOfASocket) {
  constexpr int kPortRange = 51;
  Fd fd = tcp();
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IP, kPortRange, 42'100 | 40'000U << 16));
  ASSERT_WORKS(set_option(fd, IPPROTO_IP, kPortRange, 40'000 | 41'999U << 16));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_GE(name_of(fd).port(), 40'000);
  EXPECT_LE(name_of(fd).port(), 41'999);
}

TEST(OptionEffects, FreeBindTakesAnyAddress) {
  Fd fd = tcp();
  Address other("203.0.113.9", 0);
  EXPECT_FAILS(EADDRNOTAVAIL, bind(fd, other.get(), Address::size));
  ASSERT_WORKS(set_option(fd, IPPROTO_IP, IP_FREEBIND, 1));
  ASSERT_WORKS(bind(fd, other.get(), Address::size));
  EXPECT_EQ(name_of(fd).ip(), Address("203.0.113.9", 0).ip());
  EXPECT_WORKS(listen(fd, 1));
}

TEST(OptionEffects, LessThanTheMinimumTtlIsDropped) {
  Fd fd = tcp();
  ASSERT_WORKS(set_option(fd, IPPROTO_IP, IP_MINTTL, 65));
  set_nonblocking(fd);
  EXPECT_FAILS(EINPROGRESS, connect(fd, peer().get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLOUT, 200), 0) << "the peer's answers have 64";
  ASSERT_WORKS(set_option(fd, IPPROTO_IP, IP_MINTTL, 64));
  EXPECT_EQ(poll_one(fd, POLLOUT), POLLOUT);
}

TEST(OptionEffects, LocksOfBufferSizes) {
  constexpr int kBufferLock = 72;
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, SOL_SOCKET, kBufferLock), 0);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVBUF, 10'000));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, kBufferLock), 2);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, kBufferLock, 1));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, kBufferLock), 1);
}

}  // namespace
}  // namespace api
