// UDP as a transport (RFC 768; RFC 1122, 4.1; RFC 8200, 8.1): sends each datagram to whom it belongs, and
// owns all endpoints.
//
//   Network --on_packet--> Protocol --local port, address, peer--> Endpoint's queue
//                             '-----nobody-----------------------> ICMP port unreachable
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/siphash.h"
#include "stack/census.h"
#include "stack/mem/slab.h"
#include "stack/net/context.h"
#include "stack/net/network.h"
#include "stack/net/route.h"
#include "stack/socket/datagram_socket.h"
#include "stack/tcp/ports.h"

namespace ustack {
class Host;
}

namespace ustack::udp {

class Endpoint;
struct OfPort;  // tag: the endpoints of one hash chain

/// What is counted of one family.
struct UdpCounters {
  uint64_t &in_datagrams, &no_ports, &in_errors, &out_datagrams, &receive_buffer_errors, &send_buffer_errors,
      &checksum_errors;
};

/// One for each host. Lock: the host's.
class Protocol final : public TransportProtocol {
 public:
  static constexpr uint8_t kProtocolNumber = 17;
  static constexpr uint32_t kHeader = 8;

  /// Registers itself with `network`. Place it in the arena.
  Protocol(Host& host, const HostContext& context, Network& network);
  Protocol(const Protocol&) = delete;
  Protocol& operator=(const Protocol&) = delete;
  ~Protocol();

  /// EAFNOSUPPORT: of IPv6, of which the host has no address; ENOBUFS.
  Result<Socket*> open_socket(Family family);

  void on_packet(Packet&& packet, Instant now) override;
  void on_icmp_error(const IcmpError& error, Instant now) override;

  uint64_t endpoint_count() const { return endpoints_.live(); }
  template <typename Visit>
  void for_each_endpoint(Visit&& visit) {
    endpoints_.for_each(visit);
  }

  // --- for endpoints ---

  Host& host() { return host_; }
  const HostContext& context() const { return context_; }
  Network& network() { return network_; }
  Counters& counters() { return context_.counters; }
  const UdpCounters& counters(const IpAddress& address) const { return address.is_v6() ? ipv6_ : ipv4_; }
  const Settings& settings() const { return context_.settings; }
  Slab<Datagram>& datagrams() { return datagrams_; }
  /// Gives the endpoint a port, 0 for one of ip_local_port_range (for `remote`, where it is about to
  /// connect). An unspecified address is the wildcard; IPv6's is IPv4's too, unless the endpoint is
  /// IPV6_V6ONLY. EADDRINUSE.
  Status bind_port(Endpoint& endpoint, const SocketAddress& local, const SocketAddress& remote,
                   int32_t range);
  /// The same for all datagrams between the two, and for no others as a rule (RFC 6437); 20 bits.
  uint32_t flow_label(const SocketAddress& local, const SocketAddress& remote) const;
  void destroy(Endpoint& endpoint);
  /// SO_COOKIE.
  uint64_t last_cookie = 0;

  // --- after a process was killed while it changed the host, and a census (stack/census.h) ---
  void mend();
  void begin_census() { datagrams_.begin_census(); }
  void show(Census& census);
  uint64_t unseen() { return datagrams_.unseen(); }
  void end_census() { datagrams_.end_census(); }
  /// Releases all sockets that are not `owned`.
  void release_lost();

 private:
  static constexpr uint32_t kChains = 256;
  static bool share_addresses(const Endpoint& endpoint, const IpAddress& address, const Endpoint& other);
  /// Whether two may have the same port.
  bool conflicts(const Endpoint& endpoint, const SocketAddress& local);
  /// Whose a datagram between these is, as Linux scores it (compute_score): nullptr: nobody's.
  Endpoint* find(const SocketAddress& local, const SocketAddress& remote);
  void deliver_to_all(const Packet& packet, const Datagram& what);
  bool checksum_is_right(const Packet& packet) const;
  IntrusiveList<Endpoint, OfPort>& chain(uint16_t port) { return chains_[port % kChains]; }

  Host& host_;
  HostContext context_;
  Network& network_;
  const UdpCounters ipv4_, ipv6_;
  IntrusiveList<Endpoint, OfPort> chains_[kChains];
  tcp::PortSelector selector_;
  SipKey key_;
  // Last, so that they go first.
  Slab<Datagram> datagrams_;
  Slab<Endpoint> endpoints_;
};

}  // namespace ustack::udp
