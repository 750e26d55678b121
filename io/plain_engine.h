// The engine that needs no io_uring: epoll_wait(2) or ppoll(2), read(2) and writev(2).
#pragma once

#include "io/engine.h"
#include "io/link_reader.h"

namespace ustack::io {

class PlainEngine final : public Engine {
 public:
  PlainEngine(Link& link, Host& host, Duration spin)
      : link_(link), host_(host), reader_(link, host), spin_(spin) {}

  EngineKind kind() const override { return EngineKind::plain; }
  void transmit() override;
  WaitResult wait(const WaitRequest& request) override;
  void deliver(Instant now) override;
  void forget(int kernel_fd) override;

 private:
  void tear_down(bool owner) override;
  void note(Holdings& holdings) const override { reader_.note(holdings); }

  Link& link_;
  Host& host_;
  LinkReader reader_;
  Duration spin_;
  /// The link was full at the last transmit().
  bool blocked_ = false;
};

}  // namespace ustack::io
