#include "shim/dual_stack.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>

#include "io/descriptor.h"
#include "io/syscalls.h"

namespace ustack::shim {

namespace {

/// The shortest address, without the scope (RFC 2133; inet6_bind).
constexpr socklen_t kShortest = offsetof(sockaddr_in6, sin6_scope_id);

/// linux/in6.h, which netinet/in.h excludes.
constexpr int kReceiveErrorsRfc4884 = 31, kFlowInfoSend = 33;

struct Option {
  int name;
  int16_t lowest, highest;
  int16_t initial = 0;
  /// Any number is taken, and is 1 unless it is 0.
  bool truth = false;
  /// Less than an int is 0, and else EINVAL.
  bool any_size = false;
};

constexpr Option flag(int name, int16_t initial = 0, bool any_size = false) {
  return {name, 0, 1, initial, true, any_size};
}

/// do_ipv6_setsockopt(), as far as it concerns sockets of streams and of datagrams to one host.
constexpr std::array<Option, DualStack::kOptions> kTable{{
    flag(IPV6_V6ONLY),
    {IPV6_UNICAST_HOPS, -1, 255, -1},
    {IPV6_TCLASS, -1, 255},
    {IPV6_MTU_DISCOVER, 0, 5, 1},
    {IPV6_MINHOPCOUNT, 0, 255},
    {IPV6_MULTICAST_LOOP, 0, 1, 1},
    flag(IPV6_MULTICAST_ALL, 1),
    {kReceiveErrorsRfc4884, 0, 1},
    flag(IPV6_RECVERR),
    flag(IPV6_DONTFRAG, 0, true),
    flag(IPV6_AUTOFLOWLABEL, 1, true),
    flag(kFlowInfoSend),
    flag(IPV6_FREEBIND),
    flag(IPV6_RECVPKTINFO),
    flag(IPV6_RECVHOPLIMIT),
    flag(IPV6_RECVTCLASS),
    flag(IPV6_RECVRTHDR),
    flag(IPV6_RECVHOPOPTS),
    flag(IPV6_RECVDSTOPTS),
    flag(IPV6_RECVPATHMTU),
    flag(IPV6_RECVORIGDSTADDR),
    flag(IPV6_RECVFRAGSIZE, 0, true),
    flag(IPV6_2292PKTINFO),
}};

std::optional<size_t> place_of(int name) {
  auto found = std::ranges::find(kTable, name, &Option::name);
  if (found == kTable.end()) return std::nullopt;
  return static_cast<size_t>(found - kTable.begin());
}

/// What a new socket of the kernel's says of an option, which may be a setting of the machine's
/// (net.ipv6.bindv6only); nothing: it has no IPv6.
std::optional<int> ask_new_socket(int name) {
  io::Descriptor any(static_cast<int>(io::sys::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)));
  int number = 0;
  socklen_t length = sizeof number;
  if (!any || io::sys::call(SYS_getsockopt, any.get(), IPPROTO_IPV6, name, io::sys::arg(&number),
                            io::sys::arg(&length)) != 0)
    return std::nullopt;
  return number;
}

enum class Kernel : uint8_t { not_asked, without, with, with_v6_only };
std::atomic<Kernel> kernel{Kernel::not_asked};

Kernel ask_kernel() {
  Kernel known = kernel.load(std::memory_order_relaxed);
  if (known != Kernel::not_asked) return known;
  std::optional<int> only = ask_new_socket(IPV6_V6ONLY);
  known = !only ? Kernel::without : *only != 0 ? Kernel::with_v6_only : Kernel::with;
  kernel.store(known, std::memory_order_relaxed);
  return known;
}

Result<SocketAddress> from_sockaddr_in6(const RawAddress& raw) {
  if (raw.length < kShortest) return Error{EINVAL};
  sockaddr_in6 in6;
  std::memcpy(&in6, &raw.bytes, sizeof in6);
  if (in6.sin6_family != AF_INET6) return Error{EAFNOSUPPORT};
  IpAddress address = IpAddress::from_bytes(Family::ipv6, reinterpret_cast<const std::byte*>(&in6.sin6_addr));
  return SocketAddress{unmapped_address(address), ntohs(in6.sin6_port)};
}

/// sin6_scope_id, 0 where the address is too short for it.
uint32_t scope_of(const RawAddress& raw) {
  sockaddr_in6 in6;
  std::memcpy(&in6, &raw.bytes, sizeof in6);
  return raw.length >= sizeof in6 ? in6.sin6_scope_id : 0;
}

}  // namespace

bool DualStack::is_of_other_link(const DualStack* socket, const RawAddress& raw) {
  if (socket == nullptr || !socket->in_stack_) return false;
  Result<SocketAddress> address = from_sockaddr_in6(raw);
  if (!address.ok() || !address->address.is_link_local()) return false;
  const uint32_t scope = scope_of(raw);
  return scope != 0 && scope != static_cast<uint32_t>(link_index());
}

bool DualStack::available() { return ask_kernel() != Kernel::without; }

DualStack::DualStack(bool in_stack) : in_stack_(in_stack) {
  std::ranges::transform(kTable, values_.begin(), &Option::initial);
  values_[*place_of(IPV6_V6ONLY)] = ask_kernel() == Kernel::with_v6_only;
}

DualStack DualStack::of_both(bool in_stack) {
  DualStack both(in_stack);
  both.values_[*place_of(IPV6_V6ONLY)] = 0;
  return both;
}

bool DualStack::v6_only() const { return values_[*place_of(IPV6_V6ONLY)] != 0; }

DatagramWishes DualStack::wishes() const {
  auto is_on = [this](int name) { return values_[*place_of(name)] != 0; };
  return {.packet_info = is_on(IPV6_RECVPKTINFO),
          .ttl = is_on(IPV6_RECVHOPLIMIT),
          .tos = is_on(IPV6_RECVTCLASS),
          .original_destination = is_on(IPV6_RECVORIGDSTADDR)};
}

bool DualStack::lacks_link(const RawAddress& raw, const SocketAddress& address) const {
  return in_stack_ && address.address.is_link_local() && scope_of(raw) == 0 && link_index() != 0;
}

Result<SocketAddress> DualStack::address_to_bind(const RawAddress& raw) const {
  Result<SocketAddress> local = from_sockaddr_in6(raw);
  if (!local.ok()) return local;
  if (local->address.is_v4()) return v6_only() ? Result<SocketAddress>(Error{EINVAL}) : local;
  if (local->address.is_unspecified() && !v6_only() && !in_stack_)
    local->address = IpAddress::any(Family::ipv4);
  return local;
}

Result<SocketAddress> DualStack::address_to_connect(const RawAddress& raw) const {
  Result<SocketAddress> remote = from_sockaddr_in6(raw);
  if (remote.ok() && remote->address.is_v4() && v6_only()) return Error{ENETUNREACH};
  return remote;
}

void DualStack::bound_to(const RawAddress& raw) {
  Result<SocketAddress> local = from_sockaddr_in6(raw);
  mapped_any_ = local.ok() && local->address.is_v4() && local->address.is_unspecified();
}

SocketAddress DualStack::shown(const SocketAddress& address) const {
  if (!address.address.is_v4()) return address;
  const bool any = address.address.is_unspecified() && !mapped_any_;
  return {any ? IpAddress::any(Family::ipv6) : mapped_address(address.address), address.port};
}

bool DualStack::knows(int name) { return place_of(name).has_value(); }

Status DualStack::set_option(int name, Bytes value, bool bound, bool stream) {
  std::optional<size_t> place = place_of(name);
  if (!place) return Error{ENOPROTOOPT};
  const Option& option = kTable[*place];
  int number = 0;
  if (value.size() >= sizeof number)
    std::memcpy(&number, value.data(), sizeof number);
  else if (!option.any_size)
    return Error{EINVAL};
  if (name == IPV6_V6ONLY && bound) return Error{EINVAL};
  if (option.truth) number = number != 0;
  if (number < option.lowest || number > option.highest) return Error{EINVAL};
  // The bits of ECN are not the program's in a stream (RFC 3168).
  if (name == IPV6_TCLASS) number = number < 0 ? option.initial : stream ? number & ~3 : number;
  values_[*place] = static_cast<int16_t>(number);
  return {};
}

Result<size_t> DualStack::get_option(int name, MutableBytes out) const {
  std::optional<size_t> place = place_of(name);
  if (!place) return Error{ENOPROTOOPT};
  int number = values_[*place];
  if (name == IPV6_UNICAST_HOPS && number < 0 && !in_stack_) number = ask_new_socket(name).value_or(number);
  return copy_out(&number, sizeof number, out);
}

}  // namespace ustack::shim
