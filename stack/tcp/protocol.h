// TCP as a transport: sends each segment to whom it belongs, and owns all endpoints.
//
//   Network --on_packet--> Protocol --four-tuple--> Endpoint's segment queue --waker--> its fiber
//                             |  '----------------> TimeWait (answers at once)
//                             |--local port-------> listening Endpoint's queue
//                             '--nobody-----------> RST
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/intrusive_list.h"
#include "stack/mem/slab.h"
#include "stack/net/context.h"
#include "stack/net/network.h"
#include "stack/net/route.h"
#include "stack/socket/socket.h"
#include "stack/tcp/demux.h"
#include "stack/tcp/fast_open.h"
#include "stack/tcp/iss.h"
#include "stack/tcp/piece_queue.h"
#include "stack/tcp/ports.h"
#include "stack/tcp/rate_limit.h"
#include "stack/tcp/segment.h"
#include "stack/tcp/syn_cookies.h"

namespace ustack {
class Host;
}

namespace ustack::tcp {

struct Awake;
class Endpoint;
class TimeWait;
struct SentSegment;
struct ListenerTag;  // tag: the listeners of one hash chain, or what one of them has in its queues
struct OwesAck;      // tag: connections whose ACK an answer may still carry

/// One for each host. Lock: the host's.
class Protocol final : public TransportProtocol {
 public:
  /// Registers itself with `network`. Place it in the arena: arena.create<tcp::Protocol>(...).
  Protocol(Host& host, const HostContext& context, Network& network);
  Protocol(const Protocol&) = delete;
  Protocol& operator=(const Protocol&) = delete;
  /// Ends all endpoints without a word to their peers. Not on a fiber.
  ~Protocol();

  /// A closed socket of this family. EAFNOSUPPORT: of IPv6, of which the host has no address; ENOBUFS.
  Result<Socket*> open_socket(Family family);

  void on_packet(Packet&& packet, Instant now) override;
  void on_icmp_error(const IcmpError& error, Instant now) override;

  /// Nothing is left to deliver and no FIN to exchange; TIME-WAIT, listeners and connections that nobody has
  /// closed don't count.
  bool drained() const { return closing_ == 0; }
  uint64_t endpoint_count() const { return endpoints_.live(); }
  uint64_t time_wait_count() const { return time_waits_.live(); }
  /// Calls visit(Endpoint&) for each endpoint; it must not destroy one.
  template <typename Visit>
  void for_each_endpoint(Visit&& visit) {
    endpoints_.for_each(visit);
  }
  template <typename Visit>
  void for_each_time_wait(Visit&& visit) {
    time_waits_.for_each(visit);
  }

  // --- for endpoints, listeners and TIME-WAITs ---

  const HostContext& context() const { return context_; }
  Host& host() { return host_; }
  Network& network() { return network_; }
  Counters& counters() { return context_.counters; }
  const Settings& settings() const { return context_.settings; }
  Instant now() const { return context_.now; }
  SegmentPool& segments() { return segments_; }
  PiecePool& pieces() { return pieces_; }
  Slab<SentSegment>& sent_segments() { return sent_segments_; }
  Slab<Awake>& awakes() { return awakes_; }
  /// More endpoints are awake than may be for nothing (net.ustack.tcp_awake).
  bool crowded() const;
  ConnectionTable& connections() { return connections_; }
  PortTable& ports() { return ports_; }
  IssGenerator& iss() { return iss_; }
  /// What a connection adds to the timestamp clock; nothing if tcp_timestamps is 2.
  uint32_t timestamp_offset(const ConnectionId& id) const {
    return settings().tcp_timestamps == 2 ? 0 : iss_.timestamp_offset(id.local.address, id.remote.address);
  }
  const SynCookies& syn_cookies() const { return syn_cookies_; }
  FastOpenCache& fast_open() { return fast_open_; }
  /// The host's: net.ipv4.tcp_fastopen_key or drawn at the start.
  const FastOpenKeys& fast_open_keys() const { return fast_open_keys_; }

  /// A new endpoint, nullptr when memory is out.
  Endpoint* create_endpoint(Family family);
  void destroy_endpoint(Endpoint& endpoint);
  void add_listener(Endpoint& endpoint);
  void remove_listener(Endpoint& endpoint);
  /// Somebody listens for what this segment's SYN asks for.
  bool has_listener(const ConnectionId& id) const;

  /// The TCP of another shard, or this one.
  Protocol& of_shard(uint8_t shard);
  /// Of the shards that the host is one of; nullptr: it is whole.
  const Shards* shards() const { return context_.shards; }
  /// Another socket could not listen where this one wants to, whichever shard it is in.
  bool conflicts_listening(const PortHolder& holder, uint16_t port) const;
  /// bind(2) to a port, 0 for one of `range` (IP_LOCAL_PORT_RANGE); yields the port.
  /// EADDRINUSE, ENOBUFS.
  Result<uint16_t> bind_port(PortHolder& holder, const IpAddress& address, uint16_t port, int32_t range);
  /// An ephemeral port for a connection, and claims it for `holder`. EADDRNOTAVAIL: all are in use with this
  /// peer.
  Result<uint16_t> ephemeral_port(PortHolder& holder, const IpAddress& local, const SocketAddress& remote,
                                  int32_t range);
  /// Whether an active open may use this four-tuple: it is free, or in a TIME-WAIT that tcp_tw_reuse gives up
  /// (which it is then, and `resume_at` is the sequence number to start from).
  bool acquire_tuple(const ConnectionId& id, bool loopback, std::optional<SeqNum>& resume_at);

  /// Takes over a connection that enters TIME-WAIT. Fails silently beyond tcp_max_tw_buckets, as Linux.
  void enter_time_wait(Endpoint& endpoint);
  void destroy_time_wait(TimeWait& time_wait);

  /// A challenge ACK may be sent now (RFC 5961, section 7; tcp_challenge_ack_limit a second, of which nobody
  /// outside can count exactly how many are left). Counts it.
  bool allow_challenge_ack();
  /// A segment that belongs to no connection: RFC 9293, 3.10.7.1. At most net.ustack.tcp_reset_limit a
  /// second.
  void reset_stranger(const Segment& segment);
  /// Looks the segment's owner up and hands it over, as on arrival.
  void dispatch(Segment* segment);

  /// The endpoint's ACK goes out with its next segment, or by send_owed_acks().
  void owe_ack(Endpoint& endpoint);
  void send_owed_acks();

  /// Counts endpoints that somebody has closed and that still have something to do.
  uint32_t closing() const { return closing_; }
  void count_closing(int change) { closing_ += static_cast<uint32_t>(change); }
  /// After a process was killed while it changed the host: tables and counts are rebuilt from the endpoints;
  /// those that were being changed are reset. Not on a fiber.
  void mend();
  /// A census (stack/census.h) of all connections; how many Segments, Pieces and SentSegments nobody has;
  /// those are free.
  void begin_census();
  void show(Census& census);
  uint64_t unseen();
  void end_census();
  /// Releases all sockets that are not `owned`, but for those that wait to be accepted. Not on a fiber.
  void release_lost();
  /// The endpoint that is being changed outside of its fiber.
  Endpoint* changing = nullptr;
  /// SO_COOKIE.
  uint64_t last_cookie = 0;

  /// What the queues of all sockets hold has passed tcp_mem's second limit, and not fallen below the first
  /// since (Linux's tcp_under_memory_pressure): they don't grow. Counts it.
  bool under_memory_pressure();
  /// It has passed the third: a socket may hold no more than tcp_rmem's and tcp_wmem's smallest.
  bool out_of_memory() const { return over(settings().tcp_mem[2]); }

  /// The host is being taken down: nothing is sent any more.
  bool ending() const { return ending_; }

 private:
  Endpoint* find_listener(const ConnectionId& id) const;
  bool has_eldest(Endpoint& sibling);
  template <typename Is>
  bool in_any_shard(Is&& is) const;
  bool reusable(Connection& owner, bool loopback) const;
  bool over(int32_t pages) const {
    return context_.blocks.charged() > static_cast<uint64_t>(pages) * kMemoryPage;
  }

  Host& host_;
  HostContext context_;
  Network& network_;
  SegmentPool segments_;
  PiecePool pieces_;
  Slab<SentSegment> sent_segments_;
  ConnectionTable connections_;
  PortTable ports_;
  static constexpr uint32_t kMemoryPage = 4096;
  static constexpr uint32_t kListenerChains = 256;
  mutable IntrusiveList<Endpoint, ListenerTag> listeners_[kListenerChains];
  IntrusiveList<Awake, OwesAck> owe_acks_;
  PortSelector selector_;
  IssGenerator iss_;
  SynCookies syn_cookies_;
  FastOpenCache fast_open_;
  FastOpenKeys fast_open_keys_;
  uint32_t closing_ = 0;
  RateLimit challenge_acks_, resets_;
  bool ending_ = false;
  /// Since when there is memory pressure; kNever: there is none.
  Instant pressed_since_ = kNever;
  // Last, so that they go first: they use all of the above.
  Slab<TimeWait> time_waits_;
  Slab<Awake> awakes_;
  Slab<Endpoint> endpoints_;
};

}  // namespace ustack::tcp
