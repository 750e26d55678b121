#include "stack/tcp/plain_options.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <iterator>

namespace ustack::tcp {

namespace {

// What not every header has yet.
constexpr int kIpLocalPortRange = 51;
constexpr int kSoTxRehash = 74, kSoRcvMark = 75, kSoDevmemDontNeed = 80, kSoRcvPriority = 82;
constexpr int kSoPreferBusyPoll = 69, kSoBusyPollBudget = 70, kSoReserveMem = 73, kSoPassPidfd = 76,
              kSoPeerPidfd = 77, kSoPassRights = 83, kSoDetachReuseportBpf = 68;

struct Row {
  int level, name;
  /// Its bit in `switches`; -1: none.
  int bit = -1;
  bool initially = false;
  int32_t PlainOptions::*number = nullptr;
  /// What setsockopt takes; EINVAL, or `beyond`, for all else.
  int32_t least = INT_MIN, most = INT_MAX;
  int beyond = EINVAL;
  /// Refused whatever the value: with these.
  int set_error = 0, get_error = 0;
  /// What is told where there is neither switch nor number.
  int32_t answer = 0;
  /// IPPROTO_IP's take a byte, and nothing at all for 0, unless:
  size_t shortest = 0;
};

constexpr Row on_off(int level, int name, int bit, bool initially = false, size_t shortest = 0) {
  return {.level = level, .name = name, .bit = bit, .initially = initially, .shortest = shortest};
}
/// 0 or 1 and nothing else.
constexpr Row strict(int level, int name, int bit, bool initially = false, size_t shortest = 0) {
  return {.level = level,
          .name = name,
          .bit = bit,
          .initially = initially,
          .least = 0,
          .most = 1,
          .shortest = shortest};
}
/// Never set to anything but 0, which it is.
constexpr Row only_zero(int level, int name, int beyond) {
  return {.level = level, .name = name, .least = 0, .most = 0, .beyond = beyond};
}
constexpr Row refused(int level, int name, int set_error, int get_error = ENOPROTOOPT, size_t shortest = 0) {
  return {.level = level, .name = name, .set_error = set_error, .get_error = get_error, .shortest = shortest};
}
constexpr Row fixed(int level, int name, int set_error, int32_t answer) {
  return {.level = level, .name = name, .set_error = set_error, .answer = answer};
}

constexpr Row kRows[] = {
    // Without effect on a TCP socket of Linux too.
    on_off(SOL_SOCKET, SO_DEBUG, 0),
    on_off(SOL_SOCKET, SO_NO_CHECK, 1),
    {.level = SOL_SOCKET, .name = SO_BSDCOMPAT},
    on_off(SOL_SOCKET, SO_RXQ_OVFL, 2),
    on_off(SOL_SOCKET, SO_WIFI_STATUS, 3),
    on_off(SOL_SOCKET, SO_NOFCS, 4),
    on_off(SOL_SOCKET, SO_SELECT_ERR_QUEUE, 5),
    on_off(SOL_SOCKET, kSoRcvMark, 6),
    on_off(SOL_SOCKET, kSoRcvPriority, 7),
    // For queueing disciplines, firewalls and cards.
    {.level = SOL_SOCKET, .name = SO_PRIORITY, .number = &PlainOptions::priority},
    {.level = SOL_SOCKET, .name = SO_MARK, .number = &PlainOptions::mark},
    {.level = SOL_SOCKET, .name = SO_INCOMING_CPU, .number = &PlainOptions::incoming_cpu},
    {.level = SOL_SOCKET, .name = SO_BUSY_POLL, .number = &PlainOptions::busy_poll, .least = 0},
    on_off(SOL_SOCKET, kSoPreferBusyPoll, 8),
    {.level = SOL_SOCKET,
     .name = kSoBusyPollBudget,
     .number = &PlainOptions::busy_poll_budget,
     .least = 0,
     .most = 65535,
     .get_error = ENOPROTOOPT},
    fixed(SOL_SOCKET, SO_INCOMING_NAPI_ID, ENOPROTOOPT, 0),
    {.level = SOL_SOCKET, .name = kSoTxRehash, .bit = 9, .initially = true, .least = -1, .most = 1},
    // Advice to look for another route; the default gateways are changed without it.
    {.level = SOL_SOCKET, .name = SO_CNX_ADVICE, .get_error = ENOPROTOOPT},
    {.level = SOL_SOCKET, .name = SO_PEEK_OFF, .number = &PlainOptions::peek_offset},
    // Linux has these for other sockets only.
    refused(SOL_SOCKET, SO_PASSCRED, EOPNOTSUPP, EOPNOTSUPP),
    refused(SOL_SOCKET, SO_PASSSEC, EOPNOTSUPP, EOPNOTSUPP),
    refused(SOL_SOCKET, kSoPassPidfd, EOPNOTSUPP, EOPNOTSUPP),
    refused(SOL_SOCKET, kSoPassRights, EOPNOTSUPP, EOPNOTSUPP),
    refused(SOL_SOCKET, SO_PEERGROUPS, ENOPROTOOPT, ENODATA),
    refused(SOL_SOCKET, kSoPeerPidfd, ENOPROTOOPT, ENODATA),
    refused(SOL_SOCKET, kSoDevmemDontNeed, EINVAL),
    {.level = SOL_SOCKET, .name = kSoReserveMem, .least = 0, .set_error = EOPNOTSUPP},
    // Filters: there is nothing that would run one, and none to take off. The host's only interface is no
    // interface of the machine.
    refused(SOL_SOCKET, SO_DETACH_FILTER, ENOENT),
    refused(SOL_SOCKET, kSoDetachReuseportBpf, EINVAL),
    refused(SOL_SOCKET, SO_ATTACH_BPF, EINVAL),
    refused(SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, EINVAL),
    only_zero(SOL_SOCKET, SO_LOCK_FILTER, ENOPROTOOPT),
    only_zero(SOL_SOCKET, SO_BINDTOIFINDEX, ENODEV),

    // --- tcp(7) ---
    strict(IPPROTO_TCP, TCP_INQ, PlainOptions::kInq),
    only_zero(IPPROTO_TCP, TCP_TX_DELAY, ENOPROTOOPT),

    // --- ip(7): what ancillary data is asked for matters to other sockets only ---
    on_off(IPPROTO_IP, IP_RECVOPTS, 12),
    on_off(IPPROTO_IP, IP_RETOPTS, 13),
    on_off(IPPROTO_IP, IP_PKTINFO, PlainOptions::kPacketInfo),
    on_off(IPPROTO_IP, IP_RECVTTL, PlainOptions::kReceiveTtl),
    on_off(IPPROTO_IP, IP_RECVTOS, PlainOptions::kReceiveTos),
    on_off(IPPROTO_IP, IP_PASSSEC, 17),
    on_off(IPPROTO_IP, IP_RECVORIGDSTADDR, PlainOptions::kOriginalDestination),
    on_off(IPPROTO_IP, IP_CHECKSUM, 19),
    strict(IPPROTO_IP, IP_RECVERR_RFC4884, 20),
    on_off(IPPROTO_IP, IP_FREEBIND, PlainOptions::kFreeBind, false, 1),
    on_off(IPPROTO_IP, IP_MULTICAST_LOOP, 22, true, 1),
    strict(IPPROTO_IP, IP_MULTICAST_ALL, 23, true, 1),
    {.level = IPPROTO_IP,
     .name = IP_MINTTL,
     .number = &PlainOptions::min_ttl,
     .least = 0,
     .most = 255,
     .shortest = 1},
    {.level = IPPROTO_IP, .name = kIpLocalPortRange, .number = &PlainOptions::port_range, .shortest = 4},
    // As to a program without CAP_NET_ADMIN, or one that asks an IP of ours for a kernel's firewall.
    {.level = IPPROTO_IP, .name = IP_TRANSPARENT, .least = 0, .most = 0, .beyond = EPERM, .shortest = 1},
    refused(IPPROTO_IP, IP_IPSEC_POLICY, EPERM),
    refused(IPPROTO_IP, IP_XFRM_POLICY, EPERM),
    fixed(IPPROTO_IP, IP_HDRINCL, ENOPROTOOPT, 0),
    fixed(IPPROTO_IP, IP_NODEFRAG, ENOPROTOOPT, 0),
    fixed(IPPROTO_IP, IP_ROUTER_ALERT, EINVAL, 0),
    fixed(IPPROTO_IP, IP_RECVFRAGSIZE, EINVAL, 0),
    // Of datagrams.
    fixed(IPPROTO_IP, IP_MULTICAST_IF, EINVAL, 0),
    fixed(IPPROTO_IP, IP_MULTICAST_TTL, EINVAL, 1),
    refused(IPPROTO_IP, IP_ADD_MEMBERSHIP, EPROTO),
    refused(IPPROTO_IP, IP_DROP_MEMBERSHIP, EPROTO),
    refused(IPPROTO_IP, IP_UNBLOCK_SOURCE, EINVAL),
    refused(IPPROTO_IP, IP_BLOCK_SOURCE, EINVAL),
    refused(IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, EINVAL),
    refused(IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, EINVAL),
    refused(IPPROTO_IP, IP_MSFILTER, EINVAL, EINVAL),
    refused(IPPROTO_IP, MCAST_JOIN_GROUP, EINVAL),
    refused(IPPROTO_IP, MCAST_BLOCK_SOURCE, EINVAL),
    refused(IPPROTO_IP, MCAST_UNBLOCK_SOURCE, EINVAL),
    refused(IPPROTO_IP, MCAST_LEAVE_GROUP, EINVAL),
    refused(IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, EINVAL),
    refused(IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, EINVAL),
    refused(IPPROTO_IP, MCAST_MSFILTER, EINVAL, EINVAL),
    {.level = IPPROTO_IP,
     .name = IP_UNICAST_IF,
     .least = 0,
     .most = 0,
     .beyond = EADDRNOTAVAIL,
     .shortest = 4},
};

constexpr bool bits_are_distinct() {
  uint32_t seen = 0;
  for (const Row& row : kRows) {
    if (row.bit < 0) continue;
    uint32_t bit = uint32_t{1} << row.bit;
    if ((seen & bit) != 0) return false;
    seen |= bit;
  }
  return true;
}
static_assert(bits_are_distinct());

constexpr uint32_t initial_switches() {
  uint32_t bits = 0;
  for (const Row& row : kRows)
    if (row.initially) bits |= uint32_t{1} << row.bit;
  return bits;
}

const Row* find(int level, int name) {
  for (const Row& row : kRows)
    if (row.level == level && row.name == name) return &row;
  return nullptr;
}

}  // namespace

PlainOptions::PlainOptions() : switches(initial_switches()) {}

Status PlainOptions::set(int level, int name, int value, size_t bytes) {
  const Row* row = find(level, name);
  if (row == nullptr) return Error{ENOPROTOOPT};
  if (bytes < row->shortest) return Error{EINVAL};
  if (value < row->least || value > row->most) return Error{row->beyond};
  if (row->set_error != 0) return Error{row->set_error};
  if (level == IPPROTO_IP && name == kIpLocalPortRange) {
    int lowest = value & 0xffff;
    auto highest = static_cast<int>(static_cast<uint32_t>(value) >> 16);
    if (bytes != sizeof(int) || (lowest != 0 && highest != 0 && lowest > highest)) return Error{EINVAL};
  }
  if (row->number != nullptr) this->*row->number = value;
  // SO_TXREHASH: -1 is the default.
  bool on = value == -1 && row->least == -1 ? row->initially : value != 0;
  if (row->bit >= 0)
    switches = on ? switches | uint32_t{1} << row->bit : switches & ~(uint32_t{1} << row->bit);
  return {};
}

Result<int> PlainOptions::get(int level, int name) const {
  const Row* row = find(level, name);
  if (row == nullptr) return Error{ENOPROTOOPT};
  if (row->get_error != 0) return Error{row->get_error};
  if (row->number != nullptr) return int{this->*row->number};
  if (row->bit >= 0) return is_on(row->bit) ? 1 : 0;
  return int{row->answer};
}

}  // namespace ustack::tcp
