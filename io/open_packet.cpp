// An AF_PACKET socket on an interface that the kernel goes on using (packet(7)). The host has an address of
// its own there, and as a rule a MAC address of its own, so that the kernel neither answers nor resets nor
// forwards for it. Frames between the host and this machine's own kernel don't cross: as with macvlan, both
// only talk to the wire.
#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "io/claim.h"
#include "io/config.h"
#include "io/interface_query.h"
#include "io/link.h"
#include "io/syscalls.h"
#include "stack/net/neighbour_discovery.h"

namespace ustack::io {

namespace {

/// Room for this many bytes of frames in each direction: some 16 superframes with the kernel's overhead.
constexpr int kSocketBuffer = 2 << 20;

OpenError failure(const std::string& device, const std::string& what, long result) {
  int code = static_cast<int>(-result);
  if (code == EPERM || code == EACCES)
    return {code,
            "no right to open a packet socket on " + device +
                ": CAP_NET_RAW is missing; run it as root or with CAP_NET_RAW in this network namespace"};
  return {code, "can't " + what + " on " + device + ": " + std::strerror(code)};
}

long set(int fd, int level, int name, int value) {
  return sys::setsockopt(fd, level, name, &value, sizeof value);
}

/// The most that the machine allows: SO_RCVBUFFORCE needs CAP_NET_ADMIN, the other is clamped.
void set_buffer(int fd, int forced, int clamped) {
  if (sys::failed(set(fd, SOL_SOCKET, forced, kSocketBuffer))) set(fd, SOL_SOCKET, clamped, kSocketBuffer);
}

/// A classic BPF program (networking/filter.rst) that takes what is for the host: all ARP, and IP sent to its
/// MAC address or to a group. Where it shares the interface's own MAC address its IP addresses decide.
class Filter {
 public:
  Filter(const NetworkConfig& network, bool shared_mac) {
    constexpr auto kVlanTagged = static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
    // A tag that the card has taken off: the frame is another network's.
    load(BPF_B, kVlanTagged);
    drop_unless(BPF_JEQ, 0);
    load(BPF_H, 12);
    accept_if(BPF_JEQ, ETH_P_ARP);
    if (has_ipv6(network)) skip_if(ETH_P_IPV6, 2);
    drop_unless(BPF_JEQ, ETH_P_IP);
    load(BPF_B, 0);
    accept_if(BPF_JSET, 1);  // IEEE 802.3: the group bit
    const std::byte* mac = network.link.mac.bytes.data();
    load(BPF_W, 0);
    drop_unless(BPF_JEQ, load_be32(mac));
    load(BPF_H, 4);
    drop_unless(BPF_JEQ, load_be16(mac + 4));
    if (shared_mac) {
      const auto all = std::span(network.addresses).first(network.address_count);
      if (has_ipv6(network)) {
        load(BPF_H, 12);
        skip_if(ETH_P_IP, static_cast<uint8_t>(kPerIpv6 * std::ranges::count_if(all, &is_ipv6) + 1));
        for (const Prefix& own : all)
          if (is_ipv6(own)) accept_ipv6(own.address);
        add(BPF_STMT(BPF_RET | BPF_K, 0));
      }
      load(BPF_W, ETH_HLEN + 16);
      for (const Prefix& own : all)
        if (!is_ipv6(own)) accept_if(BPF_JEQ, own.address.v4_host_order());
      add(BPF_STMT(BPF_RET | BPF_K, 0));
    } else {
      add(BPF_STMT(BPF_RET | BPF_K, kAll));
    }
  }

  long attach(int fd) {
    sock_fprog program{static_cast<unsigned short>(count_), code_.data()};
    return sys::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
  }

 private:
  static constexpr uint32_t kAll = 0x40000;  // bytes of the frame

  void load(unsigned width, uint32_t at) {
    add(BPF_STMT(static_cast<uint16_t>(BPF_LD | width | BPF_ABS), at));
  }
  void accept_if(unsigned condition, uint32_t value) {
    add(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | condition | BPF_K), value, 0, 1));
    add(BPF_STMT(BPF_RET | BPF_K, kAll));
  }
  static bool is_ipv6(const Prefix& own) { return own.address.is_v6(); }
  static bool has_ipv6(const NetworkConfig& network) {
    return std::any_of(network.addresses.begin(), network.addresses.begin() + network.address_count,
                       &is_ipv6);
  }
  void skip_if(uint32_t value, uint8_t instructions) {
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, instructions, 0));
  }
  /// What is sent to `own`; of IPv4 what lies there are other bytes.
  void accept_ipv6(const IpAddress& own) {
    for (uint8_t word = 0; word < 4; ++word) {
      load(BPF_W, ETH_HLEN + 24u + 4u * word);
      // Past what is left of the comparison and its end.
      add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, load_be32(own.data() + 4 * word), 0,
                   static_cast<uint8_t>(2 * (3 - word) + 1)));
    }
    add(BPF_STMT(BPF_RET | BPF_K, kAll));
  }
  void drop_unless(unsigned condition, uint32_t value) {
    add(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | condition | BPF_K), value, 1, 0));
    add(BPF_STMT(BPF_RET | BPF_K, 0));
  }

  void add(const sock_filter& instruction) {
    if (count_ < code_.size()) code_[count_++] = instruction;
  }

  static constexpr size_t kPerIpv6 = 9;
  static constexpr size_t kMost = 24 + kPerIpv6 * NetworkConfig::kMaxAddresses;
  std::array<sock_filter, kMost> code_;
  size_t count_ = 0;
};

/// A packet socket with all but its filter and its interface.
std::optional<OpenError> open_socket(const std::string& name, Descriptor* out) {
  // No protocol yet: nothing is received before start_packet() has set the filter.
  long opened = sys::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (sys::failed(opened)) return failure(name, "open a packet socket", opened);
  Descriptor fd(static_cast<int>(opened));
  if (long result = set(fd.get(), SOL_PACKET, PACKET_VNET_HDR, 1); sys::failed(result))
    return failure(name, "use virtio-net headers", result);
  set_buffer(fd.get(), SO_RCVBUFFORCE, SO_RCVBUF);
  set_buffer(fd.get(), SO_SNDBUFFORCE, SO_SNDBUF);
  *out = std::move(fd);
  return std::nullopt;
}

/// A group of queues.
struct Fanout {
  static constexpr int kIgnoreOutgoing = 0x4000;  // Linux 6.12: PACKET_FANOUT_FLAG_IGNORE_OUTGOING
  int number = -1;
  int flags = kIgnoreOutgoing;
  /// By connection, or as a program says (steer()).
  int spread = PACKET_FANOUT_HASH;
};

/// Joins a queue to the others (packet(7), PACKET_FANOUT): each connection's frames come to one of them. The
/// first has a group made, whose number the others are told.
long join_fanout(int fd, Fanout& group) {
  const int mode = group.spread | group.flags | (group.number < 0 ? PACKET_FANOUT_FLAG_UNIQUEID : 0);
  long result = set(fd, SOL_PACKET, PACKET_FANOUT, mode << 16 | std::max(group.number, 0));
  if (result == -EINVAL && group.number < 0 && std::exchange(group.flags, 0) != 0)
    return join_fanout(fd, group);
  if (sys::failed(result) || group.number >= 0) return result;
  int value = 0;
  socklen_t length = sizeof value;
  result = sys::getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &value, &length);
  group.number = value & 0xffff;
  return result;
}

}  // namespace

std::optional<OpenError> open_packet(const std::string& name, Link* link, uint32_t queues, bool steered) {
  Descriptor fd;
  if (auto problem = open_socket(name, &fd)) return problem;

  ifreq device;
  if (long result = query_interface(fd.get(), name, SIOCGIFHWADDR, &device); sys::failed(result)) {
    if (result == -ENODEV)
      return OpenError{ENODEV, "there is no interface " + name + " in this network namespace (ip link)"};
    return failure(name, "ask for the MAC address", result);
  }
  if (device.ifr_hwaddr.sa_family != ARPHRD_ETHER)
    return OpenError{EPROTOTYPE, "the interface " + name + " is not an Ethernet one"};

  LinkInfo info;
  std::memcpy(info.mac.bytes.data(), device.ifr_hwaddr.sa_data, info.mac.bytes.size());
  if (!sys::failed(query_interface(fd.get(), name, SIOCGIFMTU, &device)))
    info.mtu = static_cast<uint16_t>(std::clamp(device.ifr_mtu, 68, 65535));
  info.checksum_offload = info.tcp_segmentation_v4 = info.tcp_segmentation_v6 = true;
  Link made(std::move(fd), info, Link::kVirtioHeader, true, name);
  while (made.queues() < queues) {
    Descriptor more;
    if (auto problem = open_socket(name, &more)) return problem;
    made.add_queue(std::move(more));
  }
  made.steered = steered;
  *link = std::move(made);
  return std::nullopt;
}

long filter_packet(const NetworkConfig& network, bool shared_mac, Link& link) {
  for (Descriptor& queue : link.descriptors())
    if (long result = Filter(network, shared_mac).attach(queue.get()); sys::failed(result)) return result;
  return 0;
}

std::optional<OpenError> start_packet(const NetworkConfig& network, Link* link, bool insists) {
  std::string name(link->name());
  int fd = link->fd();
  const IpAddress& own = network.addresses[0].address;
  auto taken = claim("packet:" + name + " " + to_string(own), link, insists);
  if (taken && taken->code == EADDRINUSE) {
    taken->message = "the address " + to_string(own) + " on " + name +
                     " is in use by another program under libustack; choose another one in USTACK_ADDR";
  }
  if (taken) return taken;

  ifreq device;
  if (long result = query_interface(fd, name, SIOCGIFHWADDR, &device); sys::failed(result))
    return failure(name, "ask for the MAC address", result);
  bool shared_mac = std::memcmp(device.ifr_hwaddr.sa_data, network.link.mac.bytes.data(),
                                network.link.mac.bytes.size()) == 0;
  if (long result = query_interface(fd, name, SIOCGIFINDEX, &device); sys::failed(result))
    return failure(name, "ask for the index", result);
  int index = device.ifr_ifindex;

  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = __builtin_bswap16(ETH_P_ALL);
  address.sll_ifindex = index;
  Fanout group;
  if (link->steered) group.spread = PACKET_FANOUT_CBPF;
  if (long result = filter_packet(network, shared_mac, *link); sys::failed(result))
    return failure(name, "set a filter", result);
  for (Descriptor& queue : link->descriptors()) {
    // Linux 4.20; before it our own frames come back and are dropped by their destination.
    set(queue.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    if (long result = sys::call(SYS_bind, queue.get(), sys::arg(&address), sizeof address);
        sys::failed(result) && result != -ENETDOWN)
      return failure(name, "bind the packet socket", result);
    if (long result = link->queues() > 1 ? join_fanout(queue.get(), group) : 0; sys::failed(result))
      return failure(name, "have several queues", result);
  }
  auto receive = [&](unsigned short type, const MacAddress& mac) -> std::optional<OpenError> {
    packet_mreq membership{};
    membership.mr_ifindex = index;
    membership.mr_type = type;
    membership.mr_alen = static_cast<unsigned short>(mac.bytes.size());
    std::memcpy(membership.mr_address, mac.bytes.data(), mac.bytes.size());
    const long result =
        sys::setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership);
    if (!sys::failed(result)) return std::nullopt;
    return failure(name, "receive under the MAC address " + to_string(mac), result);
  };
  std::optional<OpenError> problem;
  if (!shared_mac) problem = receive(PACKET_MR_UNICAST, network.link.mac);
  // IPv6's neighbours ask for an address by a group of its own.
  for (const Prefix& each : std::span(network.addresses).first(network.address_count)) {
    if (problem || !each.address.is_v6() || each.address.is_loopback()) continue;
    problem = receive(PACKET_MR_MULTICAST, group_mac(solicited_node(each.address)));
    if (!problem) problem = receive(PACKET_MR_MULTICAST, group_mac(all_nodes()));
  }
  return problem;
}

}  // namespace ustack::io
