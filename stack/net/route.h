// Routes: how a destination is reached, and what the way allows. The seed's stack.Route.
#pragma once

#include <cstdint>

#include "stack/base/result.h"
#include "stack/fiber/task.h"
#include "stack/net/address.h"
#include "stack/net/frame.h"
#include "stack/net/neighbour.h"

namespace ustack {

class Network;

/// Header fields of an IP packet that its sender chooses.
struct IpOptionsOut {
  /// IPv6: the hop limit, the traffic class.
  uint8_t ttl = 64;
  uint8_t tos = 0;
  /// Don't fragment (RFC 1191); TCP always sets it unless IP_PMTUDISC_DONT was asked for.
  bool dont_fragment = true;
  /// Of IPv6 (RFC 6437), 20 bits.
  uint32_t flow_label = 0;
  /// Of IPv6: the largest packet, where that is less than the path's MTU; 0: that.
  uint32_t mtu = 0;
};

/// A destination with the way there. Cheap to copy; holds a reference to nothing: the neighbour is looked up
/// again when its entry went away, and when a default gateway doesn't answer the next one is taken. Made by
/// Network::find_route. Lock: the host's.
class Route {
 public:
  const IpAddress& local() const { return local_; }
  const IpAddress& remote() const { return remote_; }
  const IpAddress& next_hop() const { return next_hop_; }
  /// Largest IP packet on the path, in bytes: the link's MTU or what PMTUD has learned (RFC 1191); 65535
  /// inside this host.
  uint32_t mtu() const;
  /// What the way out can do for us: the link, or for local routes a loopback that can do everything.
  const LinkInfo& link() const;
  /// The destination is an address of this host; packets turn round inside it.
  bool is_local() const { return local_delivery_; }

  /// The next hop's link address is not known yet (never on `ip` links or for local routes).
  bool is_resolution_required() const;
  /// Success when the next hop is resolved; EWOULDBLOCK while it is being resolved, `waker` is then asserted
  /// when that has ended either way (call again to learn how); EHOSTUNREACH when it failed, after which
  /// another call tries again; ENOBUFS when the neighbour cache is full or memory is out. A waker waits for
  /// one route at a time.
  Status resolve(Waker& waker);
  /// Takes a waker out that resolve() has put in.
  void remove_waker(Waker& waker);
  /// The peer is alive (an acceptable ACK came in): keeps the neighbour entry reachable (RFC 4861, 7.3.1).
  void confirm_reachable();

  /// Puts an IP header in front of `frame` and sends it to the next hop; while that is being resolved it
  /// waits in the neighbour's queue. Takes the frame over whatever it returns. `protocol` is the IANA number.
  ///
  /// `frame` starts with the whole transport header, in its header(). What the transport may leave to the
  /// link it says in frame->offload, as in virtio-net:
  /// - partial_checksum: the checksum field, checksum_offset bytes into the transport header, holds the
  /// folded
  ///   sum of the pseudo-header, not complemented. It is completed here if the link can't.
  /// - segmentation and segment_size (TCP only): the frame is a superframe of at most link().max_superframe
  /// bytes,
  ///   whose segments of segment_size fit the path's MTU; implies partial_checksum.
  /// checksum_start and header_length are filled in here.
  ///
  /// EMSGSIZE: the packet is larger than the path's MTU and may not be fragmented (the ICMP "fragmentation
  /// needed" that a router would send is this error here), or than an IP packet can be. ENOBUFS: no memory.
  /// EINVAL: the offload contradicts the frame. If the next hop doesn't answer after all, frames that waited
  /// for it are reported to the transport as an ICMP host unreachable from this host, as Linux does.
  Status send(TxFrame* frame, uint8_t protocol, const IpOptionsOut& options);

 private:
  friend class Network;
  bool needs_neighbour() const;

  Network* network_ = nullptr;
  mutable NeighbourHint hint_;
  IpAddress local_, remote_, next_hop_;
  bool local_delivery_ = false;
  bool via_gateway_ = false;
  /// IpIds::counter_of() its destination, of IPv4.
  uint8_t ip_ids_ = 0;

 public:
  /// By which of the link's queues what is sent leaves.
  uint8_t queue = kAnyQueue;
};

/// A packet for a transport protocol, after IP has checked and reassembled it.
struct Packet {
  IpAddress source, destination;
  /// From the transport header to the packet's end.
  Slice data;
  uint8_t protocol = 0;
  uint8_t ttl = 0;
  uint8_t tos = 0;
  /// The transport checksum need not be verified: the link has, or the sender left it partial (Offload).
  bool checksum_trusted = false;
  /// A superframe: bytes of payload in each of the segments it was made of, 0 if it is one segment.
  uint16_t segment_size = 0;
  Instant arrived{};
  /// Where the IP header lies in data.block and how long the IP packet is, for ICMP errors about it; valid
  /// while `data` refers to that block, however it was trimmed.
  uint32_t network_offset = 0;
  uint32_t network_length = 0;
};

/// An ICMP error about a packet that this host has sent (RFC 1122, 4.2.3.9).
struct IcmpError {
  /// ICMP's or, between addresses of IPv6, ICMPv6's type and code as on the wire (icmp.h says what they
  /// mean).
  uint8_t type = 0, code = 0;
  /// Who sent the ICMP message.
  IpAddress reporter;
  /// From the quoted packet: our address and the peer's, and at least 8 bytes of the transport header.
  IpAddress local, remote;
  uint8_t protocol = 0;
  Bytes quoted;
  /// icmp::is_too_big(): the next hop's MTU, 0 if the router didn't say.
  uint32_t mtu = 0;
};

/// What IP delivers to: TCP and UDP. One per protocol number.
class TransportProtocol {
 public:
  virtual void on_packet(Packet&& packet, Instant now) = 0;
  virtual void on_icmp_error(const IcmpError& error, Instant now) = 0;

 protected:
  ~TransportProtocol() = default;
};

}  // namespace ustack
