// Several hosts that are one to the outside: each has a part of its connections, with a lock, timers, tables
// and memory of its own, so that threads and processes run TCP side by side.
//
//   queue 0 --> Host 0 --.                     a SYN, a segment, an ICMP error about one: the host that
//   queue 1 --> Host 1 --+-- hand_over() -->   Steering names; UDP, fragments: host 0
//   queue 2 --> Host 2 --'                     who has which link address: all of them
//
// A connection lives in the shard that Steering gives its four-tuple, for its whole life: connect(2) looks
// for a port that leads to the socket's own, a socket that is bound already moves (Socket::to_connect). A
// listener has a sibling in each other shard, which makes the connections there. Ports are one space.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/result.h"
#include "stack/net/address.h"
#include "stack/net/steering.h"

namespace ustack {

class Host;
class Socket;

/// In memory that outlives its hosts. What reaches over to other hosts than one's own (bind, connect, listen,
/// a listener's accept, close and options, Host::hand_over) is done with all their locks held.
struct Shards {
  static constexpr uint32_t kMost = 8;

  /// Of them hosts[0] speaks for all: it announces addresses and link-layer groups.
  std::array<Host*, kMost> hosts{};
  Steering steering;
  /// Whose connections accept(2) prefers: those of the calling thread.
  uint8_t callers = 0;
  /// Called around what tells the waiters of a listener, who are on its own queue, that a sibling has a
  /// connection: with the sibling's lock held only. nullptr: nothing is needed.
  void (*enter)() = nullptr;
  void (*leave)() = nullptr;

  uint32_t count() const { return steering.shards(); }
};

/// connect(2), or with_data connect_with_data(), where the connection will be: by Socket::to_connect(), and
/// where a shard has no port for it in the next one. `socket` is another one then. All locks held.
Status connect_in_shard(Socket*& socket, const SocketAddress& remote, bool with_data = false);

/// For its lifetime waiters of another shard's may be told something.
class ToOtherShards {
 public:
  explicit ToOtherShards(const Shards* shards) : shards_(shards) {
    if (shards_ != nullptr && shards_->enter != nullptr) shards_->enter();
  }
  ~ToOtherShards() {
    if (shards_ != nullptr && shards_->leave != nullptr) shards_->leave();
  }
  ToOtherShards(const ToOtherShards&) = delete;
  ToOtherShards& operator=(const ToOtherShards&) = delete;

 private:
  const Shards* shards_;
};

}  // namespace ustack
