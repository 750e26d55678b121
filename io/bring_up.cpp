#include "io/bring_up.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "io/interface_query.h"
#include "io/netlink.h"
#include "io/syscalls.h"
#include "stack/base/siphash.h"
#include "stack/net/ipv6.h"

namespace ustack::io {

namespace {

/// RFC 2544, appendix C.2.2: for benchmarks of devices on one machine; never routed.
const Prefix kPool{IpAddress::v4(198, 18, 0, 0), 15};
constexpr uint32_t kPoolSubnets = 1u << 15;
/// How many subnets of the pool are tried when others are in use.
constexpr uint32_t kPoolTries = 256;
constexpr int kCarrierPatienceMs = 2000;
constexpr char kAutomaticName[] = "ustack";

Prefix host_side(const Prefix& kernel_side) {
  return {IpAddress::v4(kernel_side.address.v4_host_order() + 1), kernel_side.length};
}

bool is_pool_kernel_side(const Prefix& prefix) {
  return prefix.address.is_v4() && prefix.length == 30 && kPool.contains(prefix.address) &&
         prefix.address.v4_host_order() % 4 == 1;
}

/// The number that the kernel has put for %d.
std::optional<uint32_t> automatic_number(const std::string& device) {
  const char* digits = device.data() + sizeof kAutomaticName - 1;
  const char* end = device.data() + device.size();
  uint32_t number = 0;
  if (!device.starts_with(kAutomaticName)) return std::nullopt;
  auto [at, error] = std::from_chars(digits, end, number);
  if (error != std::errc() || at != end) return std::nullopt;
  return number;
}

/// Takes the pool's subnet that the device has from an earlier run, or the next free one from `number` on.
std::optional<OpenError> choose_subnet(Netlink& netlink, const std::string& device, uint32_t number,
                                       Prefix* out, bool* is_there) {
  std::vector<Prefix> present;
  if (auto problem = netlink.get_addresses(device, &present)) return problem;
  auto ours = std::find_if(present.begin(), present.end(), is_pool_kernel_side);
  *is_there = ours != present.end();
  if (*is_there) {
    *out = *ours;
    return std::nullopt;
  }
  for (uint32_t i = 0; i < kPoolTries; ++i) {
    *out = pool_subnet(number + i);
    bool in_use = false;
    if (auto problem = netlink.is_in_use(*out, &in_use)) return problem;
    if (!in_use) return std::nullopt;
  }
  return OpenError{EADDRINUSE,
                   "the addresses of 198.18.0.0/15, which the host would take one of, are in use in this "
                   "network namespace; choose others with USTACK_ADDR and USTACK_GATEWAY"};
}

/// The kernel's side of a device of which the user has left the addresses to us.
std::optional<OpenError> set_up_kernel_side(const Config& config, bool created, BroughtUp* out) {
  std::string device(out->link.name());
  std::unique_ptr<Netlink> netlink;
  if (auto problem = Netlink::open(&netlink)) return problem;
  Netlink::LinkState state;
  if (auto problem = netlink->get_link(device, &state)) return problem;

  uint32_t number = static_cast<uint32_t>(state.index);
  if (config.link.scheme == LinkSpec::Scheme::automatic) number = automatic_number(device).value_or(number);
  Prefix kernel_side;
  bool is_there = false;
  if (auto problem = choose_subnet(*netlink, device, number, &kernel_side, &is_there)) return problem;

  auto explain = [&](OpenError problem) {
    if (problem.code == EPERM)
      problem.message += "; or have root give " + device +
                         " an address and bring it up, and set USTACK_ADDR to another one of its subnet";
    return problem;
  };
  if (!is_there) {
    if (auto problem = netlink->add_address(device, kernel_side)) return explain(*problem);
  }
  if (created && config.mtu != 0) {
    if (auto problem = netlink->set_mtu(device, config.mtu)) return problem;
  }
  if (!state.up) {
    if (auto problem = netlink->set_up(device)) return explain(*problem);
  }
  if (auto problem = netlink->wait_until_up(device, kCarrierPatienceMs)) return problem;

  NetworkConfig& network = out->network;
  network.addresses[network.address_count++] = host_side(kernel_side);
  network.gateways[network.gateway_count++] = kernel_side.address;
  out->summary = "the kernel's side has " + to_string(kernel_side);
  return std::nullopt;
}

/// A device that was made just now has no other use, so that it may be brought up; nothing else is touched.
std::optional<OpenError> set_up_own_device(const Config& config, BroughtUp* out) {
  std::string device(out->link.name());
  std::unique_ptr<Netlink> netlink;
  if (auto problem = Netlink::open(&netlink)) return problem;
  if (config.mtu != 0) {
    if (auto problem = netlink->set_mtu(device, config.mtu)) return problem;
  }
  if (auto problem = netlink->set_up(device)) return problem;
  if (auto problem = netlink->wait_until_up(device, kCarrierPatienceMs)) return problem;
  out->summary = "the device was made and brought up, without addresses on the kernel's side";
  return std::nullopt;
}

/// The kernel takes a device into use some time after we have given it its carrier, and until then drops what
/// it sends there: the answer to our first ARP request, so that the first connection would take a second. A
/// device that is not up is somebody else's business.
void wait_until_running(const Link& link) {
  Descriptor any(static_cast<int>(sys::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  constexpr int kStepMicroseconds = 200;
  for (int waited = 0; waited < kCarrierPatienceMs * 1000; waited += kStepMicroseconds) {
    ifreq device;
    if (sys::failed(query_interface(any.get(), link.name(), SIOCGIFFLAGS, &device))) return;
    if ((device.ifr_flags & IFF_UP) == 0 || (device.ifr_flags & IFF_RUNNING) != 0) return;
    __kernel_timespec step{0, kStepMicroseconds * 1000};
    sys::ppoll(nullptr, 0, &step, nullptr);
  }
}

/// What USTACK_MAC leaves open. A host that starts again on the same device under the same address keeps its
/// MAC: neighbours that have it in their caches would not believe another one at once (Linux's
/// net.ipv4.neigh.*.locktime is a second), and its connections would stall. Random where the link has no MAC
/// of its own that it could follow from.
MacAddress choose_mac(const Link& link, const NetworkConfig& network, RandomSource& random) {
  MacAddress mac;
  ifreq device;
  if (network.address_count == 0 ||
      sys::failed(query_interface(link.fd(), link.name(), SIOCGIFHWADDR, &device))) {
    random.fill(mac.bytes);
  } else {
    const IpAddress& address = network.addresses[0].address;
    std::array<std::byte, 6 + 16> from{};
    std::memcpy(from.data(), device.ifr_hwaddr.sa_data, 6);
    std::memcpy(from.data() + 6, address.data(), address.size());
    uint64_t hash = siphash({}, from);
    std::memcpy(mac.bytes.data(), &hash, mac.bytes.size());
  }
  // IEEE 802: locally administered, one interface.
  mac.bytes[0] = (mac.bytes[0] & std::byte{0xfc}) | std::byte{0x02};
  return mac;
}

/// An interface identifier of our own (RFC 7217), the same whenever the host starts again here. Not one that
/// follows from the MAC address: on a shared interface the kernel has that.
Prefix choose_link_local(const NetworkConfig& network) {
  std::array<std::byte, 16> bytes{std::byte{0xfe}, std::byte{0x80}};
  std::array<std::byte, 6 + 16> from{};
  std::memcpy(from.data(), network.link.mac.bytes.data(), 6);
  for (uint8_t i = 0; i < network.address_count; ++i)
    if (network.addresses[i].address.is_v6())
      std::memcpy(from.data() + 6, network.addresses[i].address.data(), 16);
  const uint64_t hash = siphash({1, 1}, from);
  std::memcpy(bytes.data() + 8, &hash, sizeof hash);
  return {IpAddress::from_bytes(Family::ipv6, bytes.data()), 64};
}

/// What every host with IPv6 has: an address on the link, and with USTACK_LOOPBACK=stack a loopback.
void complete_ipv6(const Config& config, NetworkConfig& network) {
  if (!config.has_ipv6()) return;
  const Prefix link_local = choose_link_local(network);
  if (std::ranges::none_of(config.addresses, [](const Prefix& own) { return own.address.is_link_local(); }))
    network.addresses[network.address_count++] = link_local;
  std::array<std::byte, 16> one{};
  one[15] = std::byte{1};
  if (config.loopback_in_stack)
    network.addresses[network.address_count++] = {IpAddress::from_bytes(Family::ipv6, one.data()), 128};
}

std::string describe(const BroughtUp& up) {
  std::string text = std::string(up.link.name()) + ":";
  for (uint8_t i = 0; i < up.network.address_count; ++i) text += " " + to_string(up.network.addresses[i]);
  for (uint8_t i = 0; i < up.network.gateway_count; ++i) text += " via " + to_string(up.network.gateways[i]);
  const LinkInfo& info = up.network.link;
  if (info.kind == LinkInfo::Kind::ethernet) text += ", MAC " + to_string(info.mac);
  text += ", MTU " + std::to_string(info.mtu);
  text += info.checksum_offload ? ", checksum and segmentation offload" : ", no offload";
  return up.summary.empty() ? text : text + "; " + up.summary;
}

}  // namespace

Prefix pool_subnet(uint32_t number) {
  return {IpAddress::v4(kPool.address.v4_host_order() + number % kPoolSubnets * 4 + 1), 30};
}

std::optional<OpenError> bring_up(const Config& config, RandomSource& random, BroughtUp* out, bool insists) {
  BroughtUp up;
  bool created = false;
  if (auto problem = open_link(config.link, &up.link, &created, insists)) return problem;

  for (const Prefix& address : config.addresses) up.network.addresses[up.network.address_count++] = address;
  for (const IpAddress& gateway : config.gateways) up.network.gateways[up.network.gateway_count++] = gateway;
  if (config.addresses.empty()) {
    if (config.link.scheme == LinkSpec::Scheme::fd)
      return OpenError{EINVAL, "a link over a socket needs the host's address in USTACK_ADDR"};
    if (auto problem = set_up_kernel_side(config, created, &up)) return problem;
  } else if (created) {
    if (auto problem = set_up_own_device(config, &up)) return problem;
  } else if (config.link.scheme != LinkSpec::Scheme::fd) {
    wait_until_running(up.link);
  }

  LinkInfo& info = up.link.info();
  if (config.mtu != 0) info.mtu = config.mtu;
  if (config.has_ipv6() && info.mtu < Ipv6Header::kLeastMtu)
    return OpenError{EINVAL, "the MTU of " + std::string(up.link.name()) + " is " + std::to_string(info.mtu) +
                                 ": a link of IPv6 carries at least " +
                                 std::to_string(Ipv6Header::kLeastMtu) + " bytes (RFC 8200)"};
  if (info.kind == LinkInfo::Kind::ethernet)
    info.mac = config.mac ? *config.mac : choose_mac(up.link, up.network, random);
  if (config.loopback_in_stack)
    up.network.addresses[up.network.address_count++] = {IpAddress::v4(127, 0, 0, 1), 8};
  up.network.link = info;
  complete_ipv6(config, up.network);
  if (config.link.scheme != LinkSpec::Scheme::fd)
    up.link.name().copy(up.network.device.data(), up.network.device.size() - 1);
  if (config.link.scheme == LinkSpec::Scheme::packet)
    if (auto problem = start_packet(up.network, &up.link, insists)) return problem;
  up.summary = describe(up);
  *out = std::move(up);
  return std::nullopt;
}

}  // namespace ustack::io
