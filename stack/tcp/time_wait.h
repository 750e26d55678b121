// TIME-WAIT as a small object of its own: what must be remembered of a connection that has ended (RFC
// 9293, 3.6.1).
#pragma once

#include <cstdint>

#include "stack/net/route.h"
#include "stack/tcp/demux.h"
#include "stack/tcp/segment.h"
#include "stack/time/timer.h"

namespace ustack::tcp {

class Protocol;

/// How long it lasts: 2 MSL, as Linux's TCP_TIMEWAIT_LEN.
inline constexpr Duration kTimeWait = 60s;

/// What of the connection still counts.
struct TimeWaitState {
  SeqNum snd_nxt;
  SeqNum rcv_nxt;
  uint32_t rcv_wnd = 0;
  uint8_t rcv_wscale = 0;
  bool timestamps = false;
  uint32_t ts_recent = 0;
  Instant ts_recent_at{};
  uint32_t ts_offset = 0;
};

/// What a segment means to a connection in TIME-WAIT.
enum class TimeWaitVerdict : uint8_t {
  drop,
  acknowledge,  ///< and wait another 2 MSL if `restart`
  reopen,       ///< a new SYN: the four-tuple may be used again
  end,          ///< a RST that ends it (RFC 1337 unheeded, as Linux by default)
};
struct TimeWaitAnswer {
  TimeWaitVerdict verdict = TimeWaitVerdict::drop;
  bool restart = false;
  bool old_timestamp = false;
};
/// RFC 9293, 3.10.7.4 in TIME-WAIT, RFC 6191 and RFC 1337, as Linux's tcp_timewait_state_process. Updates
/// TS.Recent.
TimeWaitAnswer segment_in_time_wait(TimeWaitState& state, const Segment& segment, bool rfc1337, Instant now);

/// Lock: the host's. Lives in Protocol's slab.
class TimeWait final : public Connection {
 public:
  TimeWait(Protocol& protocol, const Route& route, const IpOptionsOut& ip, const TimeWaitState& state);
  /// Takes it out of everything through which it is reached (see Slab).
  void retire();

  /// Handles a segment; takes it over. May destroy *this.
  void on_segment(Segment* segment);
  /// Starts the 2 MSL anew.
  void restart();
  /// After a process was killed while it changed the host: its timer runs.
  void mend();
  const TimeWaitState& time_wait_state() const { return state_; }
  Instant deadline() const { return timer_.deadline(); }
  PortHolder& port() { return port_; }

 private:
  void send_ack();

  Protocol& protocol_;
  Route route_;
  IpOptionsOut ip_;
  TimeWaitState state_;
  PortHolder port_;
  Timer timer_;
  Instant last_ack_{};
};

}  // namespace ustack::tcp
