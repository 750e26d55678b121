// The host below the transports: one interface, its addresses and routes, ARP, IPv4, ICMP, and the same of
// IPv6: neighbour discovery and ICMPv6.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "stack/net/address.h"
#include "stack/net/arp.h"
#include "stack/net/context.h"
#include "stack/net/ethernet.h"
#include "stack/net/frame.h"
#include "stack/net/icmp.h"
#include "stack/net/icmp_limit.h"
#include "stack/net/icmpv6.h"
#include "stack/net/ip_id.h"
#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"
#include "stack/net/neighbour.h"
#include "stack/net/neighbour_discovery.h"
#include "stack/net/path_mtu.h"
#include "stack/net/reassembly.h"
#include "stack/net/route.h"

namespace ustack {

/// Where the interface is and how it reaches the rest.
struct NetworkConfig {
  /// What a user may choose; besides there are the loopbacks' and IPv6's link-local one.
  static constexpr size_t kMaxChosen = 16, kMaxAddresses = kMaxChosen + 3, kMaxGateways = 4;
  LinkInfo link;
  /// What SO_BINDTODEVICE knows the link by (IFNAMSIZ with the zero); empty: nothing.
  std::array<char, 16> device{};
  std::array<Prefix, kMaxAddresses> addresses{};
  uint8_t address_count = 0;
  std::array<IpAddress, kMaxGateways> gateways{};
  uint8_t gateway_count = 0;
};

/// A packet on its way up.
struct Arrival {
  Slice packet;  // from its IP header, without padding
  Offload offload;
  Instant arrived{};
  bool from_self = false;  // it never left the host
  bool link_broadcast = false;
  /// By another shard, which has counted it already (it was put together of fragments there) or not.
  bool handed_over = false, counted = false;

  bool trusted() const { return from_self || offload.partial_checksum || offload.checksum_valid; }
};

/// What has come to one shard of a host and is another's.
struct Stray {
  enum class Kind : uint8_t {
    packet,
    arp,        ///< for all others, who learn from it; `packet` is ARP's
    discovery,  ///< the same of IPv6's neighbour discovery
  };
  uint8_t shard = Steering::kAnyShard;
  Kind kind = Kind::packet;
  Arrival arrival;
};

/// The host's side of one link. What comes in goes
///
///     receive -> Ethernet -> ARP -> NeighbourCache
///                        \-> IPv4, IPv6 -> Reassembler -> ICMP, ICMPv6 -> TransportProtocol::on_icmp_error
///                                                     |              \-> NeighbourCache
///                                                     \-> TransportProtocol::on_packet
///
/// and what goes out Route::send -> IPv4, IPv6 -> NeighbourCache -> Ethernet -> the transmit queue.
/// A host without an address of IPv6 takes no notice of it. Lock: the host's.
class Network final : private NeighbourPort {
 public:
  /// `transmit` is where frames for the link are put, in order. Needs no memory of the arena yet.
  Network(const HostContext& context, const NetworkConfig& config, FrameQueue& transmit);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network();

  const HostContext& context() { return context_; }
  const LinkInfo& link() const { return config_.link; }
  const NetworkConfig& config() const { return config_; }
  std::string_view device() const { return config_.device.data(); }
  /// 127.0.0.0/8 is inside the host (USTACK_LOOPBACK=stack).
  bool has_loopback() const { return loopback(Family::ipv4) != nullptr; }
  /// It has an address of IPv6.
  bool has_ipv6() const;
  std::span<const Prefix> addresses() const { return {config_.addresses.data(), config_.address_count}; }
  /// One of addresses(), or in the same 127.0.0.0/8 as one of them (but for its broadcast address).
  bool is_own_address(const IpAddress& address) const;
  /// The limited broadcast address or one of our prefixes'.
  bool is_broadcast(const IpAddress& address) const;

  /// Announces our addresses (gratuitous ARP, RFC 5227 section 3; unsolicited advertisements, RFC 4861
  /// section 7.2.6; once, as Linux's arp_notify and ndisc_notify), and for IPv6 the groups that they are
  /// asked for by.
  void start();
  /// The link's largest IP packet is another one from now on, 68 to 65535 bytes.
  void set_link_mtu(uint16_t mtu) { config_.link.mtu = mtu; }
  /// The link's MAC address is, which is announced.
  void set_link_mac(const MacAddress& mac) {
    config_.link.mac = mac;
    start();
  }
  /// A frame from the link. Never fails: what is malformed or not for us is counted and dropped.
  void receive(RxFrame&& frame);
  /// The way to `remote`, from `local` if that is specified. ENETUNREACH, EADDRNOTAVAIL (local is not ours),
  /// EACCES (broadcast). Remote 0.0.0.0 means this host, as in Linux.
  Result<Route> find_route(const IpAddress& local, const IpAddress& remote);
  /// Protocol numbers without a handler are answered with ICMP protocol unreachable.
  void set_transport(uint8_t protocol, TransportProtocol* handler);
  /// Sends an ICMP error about a received packet (RFC 1122, 3.2.2: never about errors, broadcasts, fragments
  /// other than the first), rate limited as Linux does. `info` is bytes 4 to 7 of the message.
  void send_icmp_error(const Packet& about, uint8_t type, uint8_t code, uint32_t info);
  /// The same of an IPv6 packet (RFC 4443, 2.4).
  void send_icmpv6_error(const Packet& about, uint8_t type, uint8_t code, uint32_t info);
  /// A "fragmentation needed" (IPv6: "packet too big") with this next-hop MTU (0: not said) came for a packet
  /// to `remote`, and the transport has found the quoted packet to be one of its own (RFC 1191; RFC 5927,
  /// section 7.2). Returns the path MTU from now on, which Route::mtu() of all routes there tells, too.
  uint32_t update_path_mtu(const IpAddress& remote, uint32_t mtu);
  /// Receives the frames that turned round inside the host (is_local routes) since the last call. True if
  /// there were any. They are queued and not received by their senders, so that nothing recurses.
  bool deliver_local();
  /// What has come that is another shard's, oldest first; nothing: there is none.
  std::optional<Stray> take_stray();
  bool has_strays() const { return stray_count_ != 0; }
  /// What has come to another one, in whose memory it is.
  void receive_stray(const Stray& stray);
  /// deliver_local() has something to do.
  bool has_local() const { return !local_.empty(); }

  NeighbourCache& neighbours() { return neighbours_; }
  /// After a process was killed while it changed the host.
  void mend();
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    census.see(local_);
    neighbours_.show(census);
    reassembler_.show(census);
    for (uint32_t i = 0; i < stray_count_; ++i) census.see(stray_at(i).arrival.packet);
  }
  const Reassembler& reassembler() const { return reassembler_; }

 private:
  friend class Route;
  struct Received : Arrival {
    Ipv4Header header;
  };
  struct ReceivedV6 : Arrival {
    Ipv6Header header;
    Ipv6Chain chain;
  };
  enum class Destination : uint8_t { foreign, own, broadcast };

  // strays.cpp
  bool hand_over(Arrival& arrival);
  void hand_to_all(Stray::Kind kind, const Arrival& arrival);
  void add_stray(Stray&& stray);
  void mend_strays();
  Stray& stray_at(uint32_t i) { return strays_[(first_stray_ + i) % kMostStrays]; }

  // arp.cpp
  void receive_arp(Bytes packet);
  void learn_from_arp(Bytes packet);
  void learn_from(const ArpPacket& packet, bool for_us);
  void conflict(const IpAddress& own, const MacAddress& other);
  void defend(const IpAddress& address);
  bool send_arp(const ArpPacket& packet, const MacAddress& destination);
  void announce(const IpAddress& address);
  void solicit_by_arp(const IpAddress& target, const MacAddress* known);
  void solicit(const IpAddress& target, const MacAddress* known) override;

  // ipv4_input.cpp
  void receive_ipv4(Received&& received);
  void count_ecn(uint8_t tos, Family family);
  Destination classify(const IpAddress& destination) const;
  bool is_martian_source(const Received& received) const;
  void deliver(Received&& received);
  static Packet make_packet(const Received& received);
  static void on_reassembly_expired(void* network, const Slice& first_fragment);

  // ipv6_input.cpp
  void receive_ipv6(ReceivedV6&& received);
  bool is_own_group(const IpAddress& group) const;
  void deliver(ReceivedV6&& received);
  static Packet make_packet(const ReceivedV6& received);
  void send_problem(const ReceivedV6& received);

  // ipv6_output.cpp
  Status send_ipv6(Route& route, TxFrame* frame, uint8_t protocol, const IpOptionsOut& options);
  Status send_fragments(Route& route, TxFrame* frame, const Ipv6Header& header, uint32_t mtu);

  // icmpv6.cpp
  void receive_icmpv6(const ReceivedV6& received);
  void receive_icmpv6_error(const ReceivedV6& received, Bytes message);

  // neighbour_discovery.cpp
  void learn_by_discovery(ReceivedV6&& received);
  void learn_from_solicitation(const IpAddress& sender, const NeighbourMessage& message);
  void receive_solicitation(const ReceivedV6& received, const NeighbourMessage& message);
  void receive_advertisement(const NeighbourMessage& message, bool answers = true);
  void advertise(const IpAddress& address);
  void solicit_by_discovery(const IpAddress& target, const MacAddress* known);
  bool send_neighbour_message(const NeighbourMessage& message, const IpAddress& source,
                              const IpAddress& destination, const MacAddress& mac);
  void send_group_report(bool joins);
  void send_on_link(TxFrame* frame, const Ipv6Header& header, const MacAddress& mac);

  // ipv4_output.cpp
  void transmit_to(TxFrame* frame, const MacAddress& mac, Family family) override;
  Status send_ipv4(Route& route, TxFrame* frame, uint8_t protocol, const IpOptionsOut& options);
  Status send_fragments(Route& route, TxFrame* frame, const Ipv4Header& header);
  Status send_packet(Route& route, TxFrame* frame, const Ipv4Header& header);
  Status send_to_next_hop(Route& route, TxFrame* frame);
  bool cut(TxFrame& frame, uint32_t most, FrameQueue& parts);
  TxFrame* copy_part(TxFrame& frame, uint32_t from, uint32_t count);
  Status prepare_segmentation(const Route& route, TxFrame& frame, uint8_t protocol, uint32_t& segments);
  Status prepare_checksum(const Route& route, TxFrame& frame, uint8_t protocol, bool fragments);
  Status refuse(const Route& route, TxFrame* frame, Error error);
  void transmit(TxFrame* frame);

  // icmp.cpp
  void receive_icmp(const Received& received);
  void receive_echo_request(const Received& received, const IcmpHeader& header);
  void receive_icmp_error(const Received& received, const IcmpHeader& header);
  void send_icmp(Route& route, const IcmpHeader& header, Slice payload, uint8_t tos);

  // routing.cpp
  void report_unreachable(TxFrame* frame) override;
  const Prefix* prefix_of(const IpAddress& neighbour) const;
  const Prefix* loopback(Family family) const;
  IpAddress source_to_self(const IpAddress& own) const;
  IpAddress choose_gateway(Family family);
  IpAddress choose_source(const IpAddress& remote, const IpAddress& next_hop) const;
  IpAddress choose_ipv6_source(const IpAddress& remote) const;
  void avoid_dead_gateway(Route& route);

  uint32_t link_header_length() const {
    return config_.link.kind == LinkInfo::Kind::ethernet ? EthernetHeader::kLength : 0;
  }

  HostContext context_;
  NetworkConfig config_;
  FrameQueue& transmit_;
  FrameQueue local_;
  /// More than that are dropped until they are handed over.
  static constexpr uint32_t kMostStrays = 64;
  std::array<Stray, kMostStrays> strays_;
  uint32_t first_stray_ = 0, stray_count_ = 0;
  uint32_t local_count_ = 0;
  NeighbourCache neighbours_;
  PathMtuCache path_mtus_;
  Reassembler reassembler_;
  IcmpLimiter icmp_limiter_;
  IpIds ip_ids_;
  std::array<TransportProtocol*, 256> transports_{};
  std::array<Instant, NetworkConfig::kMaxAddresses> next_defence_{};
};

}  // namespace ustack
