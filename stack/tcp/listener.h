// What a listening endpoint has besides: connections that are being made, and those that wait for accept(2).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/settings.h"
#include "stack/shards.h"
#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

/// Lock: the host's. Lives in the arena as long as its endpoint listens.
struct Listener {
  /// listen(2)'s backlog, cut to net.core.somaxconn.
  uint32_t backlog = 0;
  /// Endpoints in SYN-RECEIVED, each with a fiber in Handshake::execute().
  IntrusiveList<Endpoint, ListenerTag> half_open;
  uint32_t half_open_count = 0;
  /// Endpoints whose handshake is done, oldest first.
  IntrusiveList<Endpoint, ListenerTag> ready;
  /// Read by siblings without its lock; and when the first of them was established, kNever if there is none.
  std::atomic<uint32_t> ready_count = 0;
  std::atomic<Instant> waiting_since = kNever;
  /// Accepted connections whose handshake is still under way (Fast Open); and how many there are with those
  /// that wait in `ready`.
  IntrusiveList<Endpoint, ListenerTag> early;
  uint32_t early_count = 0;
  /// Where the host has shards: those in the others, which make the connections there and are the program's
  /// only through this one; or the one whose sibling it is.
  std::array<Endpoint*, Shards::kMost> siblings{};
  Endpoint* eldest = nullptr;
  /// When a SYN last found the SYN queue full; zero: never. Only then may a peer come with a SYN cookie.
  Instant last_overflow{};

  void add_half_open(Endpoint& endpoint) {
    half_open.push_back(endpoint);
    ++half_open_count;
  }
  void remove_half_open(Endpoint& endpoint) {
    half_open.remove(endpoint);
    --half_open_count;
  }
  void add_ready(Endpoint& endpoint);
  void remove_ready(Endpoint& endpoint);
  /// After a change of `ready`.
  void note_first();
  void count_ready(uint32_t change) {
    ready_count.store(ready_count.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }
  /// Handshakes that may be under way at once; each holds an endpoint and a fiber. Beyond it SYNs are
  /// answered with SYN cookies or, without them, dropped. As the backlog, but not so few that a burst on a
  /// small one has to wait for SYN time-outs.
  uint32_t half_open_limit(const Settings& settings) const {
    constexpr uint32_t kLeast = 8;
    uint32_t wanted = backlog > kLeast ? backlog : kLeast;
    auto most = static_cast<uint32_t>(settings.tcp_max_syn_backlog);
    return wanted < most ? wanted : most;
  }
};

}  // namespace ustack::tcp
