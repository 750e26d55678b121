// What comes to a listener outside of the host over the machine's loopback.
//
//   program listens on 0.0.0.0        keeper
//   end (AF_UNIX) <---- carrier ----- EscapedTwin: accepts from the kernel's listener on lo
//   accept() finds the carrier, takes the kernel's socket out of it and puts it in its place
#pragma once

#include <utility>

#include "io/descriptor.h"
#include "shim/escaped_end.h"
#include "shim/escaped_name.h"

namespace ustack::shim {

/// In the arena, of one EscapedListener. Its descriptor is the keeper's.
class EscapedTwin final : public Served {
 public:
  /// `listener`: of the kernel's, from the program. `outer`: the name of the end. nullptr: ENOMEM, ENOSPC.
  static EscapedTwin* make(io::Descriptor listener, const UnixAddress& outer, const SocketAddress& local);
  static void destroy(EscapedTwin* twin);
  /// Its keeper has died, and the descriptor with it.
  static void abandon(EscapedTwin* twin);

  void on_kernel(HostLock& lock) override;

 private:
  friend class ustack::Arena;
  EscapedTwin(io::Descriptor listener, const UnixAddress& outer, const SocketAddress& local)
      : listener_(std::move(listener)), outer_(outer), local_(local) {}
  ~EscapedTwin() = default;
  void carry(io::Descriptor connection);

  io::Descriptor listener_;
  UnixAddress outer_;
  SocketAddress local_;
};

}  // namespace ustack::shim
