// The host below the transports: one interface, its addresses and routes, ARP, IPv4, ICMP.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "stack/base/log.h"
#include "stack/base/random.h"
#include "stack/counters.h"
#include "stack/mem/arena.h"
#include "stack/mem/block.h"
#include "stack/net/address.h"
#include "stack/net/frame.h"
#include "stack/net/route.h"
#include "stack/settings.h"
#include "stack/time/timer.h"

namespace ustack {

class NeighbourCache;
class Reassembler;

/// What the parts of a host share. References stay valid as long as the host.
struct HostContext {
  Arena& arena;
  BlockPool& blocks;
  FramePool& frames;
  Scheduler& scheduler;
  TimerWheel& timers;
  RandomSource& random;
  Counters& counters;
  Settings& settings;
  const Log& log;
  /// The time of the batch being processed; set once per Host::receive/run, read instead of a clock.
  const Instant& now;
};

/// Where the interface is and how it reaches the rest.
struct NetworkConfig {
  static constexpr size_t kMaxAddresses = 16, kMaxGateways = 4;
  LinkInfo link;
  std::array<Prefix, kMaxAddresses> addresses{};
  uint8_t address_count = 0;
  std::array<IpAddress, kMaxGateways> gateways{};
  uint8_t gateway_count = 0;
};

/// Lock: the host's.
class Network {
 public:
  Network(const HostContext& context, const NetworkConfig& config, FrameQueue& transmit);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network();

  const HostContext& context() { return context_; }
  const LinkInfo& link() const { return config_.link; }
  std::span<const Prefix> addresses() const { return {config_.addresses.data(), config_.address_count}; }
  bool is_own_address(const IpAddress& address) const;

  /// Announces our addresses (gratuitous ARP, RFC 5227 section 3).
  void start();
  /// A frame from the link. Never fails: what is malformed or not for us is counted and dropped.
  void receive(RxFrame&& frame);
  /// The way to `remote`, from `local` if that is specified. ENETUNREACH, EADDRNOTAVAIL (local is not ours),
  /// EACCES (broadcast).
  Result<Route> find_route(const IpAddress& local, const IpAddress& remote);
  /// Protocol numbers without a handler are answered with ICMP protocol unreachable.
  void set_transport(uint8_t protocol, TransportProtocol* handler);
  /// Sends an ICMP error about a received packet (RFC 1122, 3.2.2: never about errors, broadcasts, fragments
  /// other than the first), rate limited as Linux does.
  void send_icmp_error(const Packet& about, uint8_t type, uint8_t code, uint32_t info);
  /// Frames that turn round inside the host (is_local routes), to be received in the next run.
  bool deliver_local();

  NeighbourCache& neighbours() { return *neighbours_; }

 private:
  friend class Route;
  HostContext context_;
  NetworkConfig config_;
  FrameQueue& transmit_;
  FrameQueue local_;
  NeighbourCache* neighbours_ = nullptr;
  Reassembler* reassembler_ = nullptr;
  std::array<TransportProtocol*, 256> transports_{};
};

}  // namespace ustack
