// A connection outside of the library: the keeper moves bytes between it and one side of a socket pair.
#pragma once

#include <utility>

#include "shim/escaped_end.h"

namespace ustack::shim {

/// Towards the network: whatever the outer side writes, at once. From the network: when nobody else has the
/// connection bytes are simply moved. As long as relatives have it too, they are lent: shown to the outer
/// side while they stay in the receive buffer, and taken out of it when they were read there; so that a child
/// which merely inherits the descriptor takes nothing away, and one that reads it finds everything.
class EscapedStream final : public EscapedEnd {
 public:
  /// Takes over a reference to `file`. `inner`: the keeper's side, O_NONBLOCK.
  EscapedStream(SocketFile& file, io::Descriptor inner, io::Descriptor outer, const UnixAddress& name = {});
  /// Must follow at once. On failure (ENOMEM, ENOSPC) the end is gone, with its reference.
  Status begin();
  /// In place of begin(), for a socket that connects (escape::connect_outside).
  Status begin_connecting(const SocketAddress& remote, bool at_once, io::Descriptor&& request);

  void abandon() override;
  void give_up() override;
  Status connect_again() override;
  int take_error() override { return std::exchange(error_, 0); }

 protected:
  bool work(HostLock& lock) override;
  void end(HostLock& lock, bool reset) override;

 private:
  friend class ustack::Arena;
  ~EscapedStream() = default;
  /// waits: a thread has the turn at the buffer.
  enum class After : uint8_t { nothing, more, waits, gone };
  After to_network(HostLock& lock);
  After from_network(HostLock& lock);
  After move(HostLock& lock);
  After lend(HostLock& lock);
  void count_lent();
  void take_back();
  void leave_to_others();
  After break_off(HostLock& lock, int error);
  void take_name();
  bool hung_up() const;
  bool is_over() const;

  io::Descriptor inner_;
  /// True: it is still connecting, or has failed to, and the program has been told or will be.
  bool look_at_connect();
  void fill();
  void drain();

  enum class Connect : uint8_t { done, under_way, failed };
  Connect connect_ = Connect::done;
  /// Who waits for the connection.
  io::Descriptor request_;
  /// Bytes that keep the outer side from being writable.
  size_t filling_ = 0;
  /// It is broken, and stays until the outer side has seen that; why, until that was told.
  bool broken_ = false;
  int error_ = 0;
  bool writing_ended_ = false;
  bool reading_ended_ = false;
};

}  // namespace ustack::shim
