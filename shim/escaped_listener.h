// A listener outside of the library: an AF_UNIX socket of which the keeper's connections are accepted.
#pragma once

#include "shim/escaped_end.h"
#include "shim/escaped_name.h"

namespace ustack::shim {

class EscapedTwin;

/// Connections that nobody in the host will accept are accepted by the keeper, which connects to the outer
/// listener for each and moves bytes from then on (EscapedStream). As long as relatives have the listener
/// too, a connection is offered outside only if they leave it waiting, one at a time, and taken back when a
/// relative comes for it first.
class EscapedListener final : public EscapedEnd {
 public:
  /// Takes over a reference to `file`. `outer` listens under `name`.
  EscapedListener(SocketFile& file, io::Descriptor outer, const UnixAddress& name);

  /// It is reached over the kernel's loopback too, by `listener`.
  void have_twin(io::Descriptor listener);

  bool is_listener() const override { return true; }
  void abandon() override;
  void give_up() override;

 protected:
  bool work(HostLock& lock) override;
  void end(HostLock& lock, bool reset) override;

 private:
  friend class ustack::Arena;
  ~EscapedListener() = default;
  bool pass_on_all(HostLock& lock);
  /// False: none waits.
  bool take_one();
  void offer(HostLock& lock);
  void look_after_offer();
  void take_back();
  /// Connects to the outer listener. EAGAIN: its queue is full; ECONNREFUSED: it is closed.
  struct Connected {
    io::Descriptor inner;
    UnixAddress name;
  };
  Result<Connected> connect(SocketFile& connection);
  void start_moving(SocketFile& connection, Connected&& connected);
  bool outer_listens() const;
  bool offer_waits() const;

  EscapedTwin* twin_ = nullptr;
  /// Accepted, and on its way to where it belongs.
  SocketFile* taken_ = nullptr;
  /// Lent: not known to be accepted yet.
  SocketFile* offered_ = nullptr;
  Connected offered_to_;
  Instant waiting_since_ = kNever;
};

}  // namespace ustack::shim
