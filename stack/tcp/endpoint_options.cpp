// setsockopt and getsockopt: one table of options, with the checks, bounds and errnos of Linux. What is not
// in it is refused, so that no option is accepted and ignored.
#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "stack/host.h"
#include "stack/tcp/bbr.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/iss.h"
#include "stack/tcp/listener.h"
#include "stack/tcp/tcp_info.h"

namespace ustack::tcp {

namespace {

// TCP_IS_MPTCP, which not every <linux/tcp.h> has.
constexpr int kIsMptcp = 43;
// As are these.
constexpr int kThinLinearTimeouts = 16, kBufferLock = 72, kIpProtocol = 52;
// TCP_RTO_MAX_MS, TCP_RTO_MIN_US, TCP_DELACK_MAX_US.
constexpr int kRtoMaxMs = 44, kRtoMinUs = 45, kAckDelayMaxUs = 46;
constexpr Duration kLeastTimeout = 2ms;

/// TCP_DEFER_ACCEPT in seconds as SYN-ACK time-outs that start at 1 s and double, and back (secs_to_retrans).
uint8_t seconds_to_timeouts(int seconds) {
  if (seconds <= 0) return 0;
  int timeout = 1, period = 1, count = 1;
  while (seconds > period && count < 255) {
    ++count;
    timeout = std::min(timeout * 2, 120);
    period += timeout;
  }
  return static_cast<uint8_t>(count);
}
int timeouts_to_seconds(uint8_t count) {
  int timeout = 1, period = count > 0 ? 1 : 0;
  for (int i = 1; i < count; ++i) {
    timeout = std::min(timeout * 2, 120);
    period += timeout;
  }
  return period;
}

int seconds(Duration d) { return static_cast<int>(d / 1s); }

}  // namespace

/// The rows; a struct of its own so that they may look into Endpoint.
struct OptionTable {
  using Set = Status (*)(Endpoint& ep, Bytes value);
  using SetInt = Status (*)(Endpoint& ep, int value);
  using Get = Result<size_t> (*)(Endpoint& ep, MutableBytes out);
  using GetInt = Result<int> (*)(Endpoint& ep);
  struct Row {
    int level, name;
    SetInt set_int = nullptr;
    GetInt get_int = nullptr;
    Set set = nullptr;
    Get get = nullptr;
  };

  template <bool SocketOptions::*Field>
  static constexpr Row flag(int level, int name) {
    return {.level = level,
            .name = name,
            .set_int =
                [](Endpoint& ep, int value) {
                  ep.awake_->options.*Field = value != 0;
                  return Status();
                },
            .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.*Field ? 1 : 0; }};
  }

  static Status set_send_buffer(Endpoint& ep, int value, int most) {
    ep.awake_->options.send_limit = buffer_limit(value, most, kLeastSendBuffer);
    ep.awake_->options.send_limit_locked = true;
    if (may_send(ep.awake_->tcb.state) && ep.can_write()) ep.wake(ready::kOut | ready::kWrNorm);
    return {};
  }
  static Status set_receive_buffer(Endpoint& ep, int value, int most) {
    ep.awake_->tcb.rcv.limit = buffer_limit(value, most, kLeastReceiveBuffer);
    ep.awake_->tcb.rcv.limit_locked = true;
    return {};
  }

  static Status set_low_water(Endpoint& ep, int value) {
    Receiver& rcv = ep.awake_->tcb.rcv;
    auto wanted = static_cast<uint32_t>(value < 0 ? INT_MAX : value);
    // tcp_set_rcvlowat: never more than the window can hold; and the buffer grows with it.
    uint32_t most =
        rcv.limit_locked ? rcv.limit / 2 : static_cast<uint32_t>(ep.protocol_.settings().tcp_rmem[2]) / 2;
    rcv.low_water = std::max(std::min(wanted, most), 1u);
    if (!rcv.limit_locked && space_from_window(rcv.low_water) > rcv.limit)
      rcv.limit = space_from_window(rcv.low_water);
    if (rcv.buffer.size() >= rcv.low_water) ep.wake(ready::kIn | ready::kRdNorm);
    return {};
  }

  static Status set_linger(Endpoint& ep, Bytes value) {
    linger l;
    if (value.size() < sizeof l) return Error{EINVAL};
    std::memcpy(&l, value.data(), sizeof l);
    ep.awake_->options.linger = l.l_onoff != 0;
    if (l.l_onoff != 0) ep.awake_->options.linger_seconds = l.l_linger < 0 ? INT_MAX : l.l_linger;
    return {};
  }
  static Result<size_t> get_linger(Endpoint& ep, MutableBytes out) {
    linger l{ep.awake_->options.linger ? 1 : 0, ep.awake_->options.linger_seconds};
    return copy_out(&l, sizeof l, out);
  }

  /// Only BBR has something to tell (struct tcp_bbr_info).
  static Result<size_t> get_congestion_info(Endpoint& ep, MutableBytes out) {
    if (ep.awake_->tcb.snd.congestion->name() != "bbr") return size_t{0};
    const auto& bbr = static_cast<const Bbr&>(*ep.awake_->tcb.snd.congestion);
    tcp_bbr_info info{.bbr_bw_lo = static_cast<uint32_t>(bbr.bandwidth()),
                      .bbr_bw_hi = static_cast<uint32_t>(bbr.bandwidth() >> 32),
                      .bbr_min_rtt = static_cast<uint32_t>(to_us(bbr.min_rtt())),
                      .bbr_pacing_gain = bbr.pacing_gain(),
                      .bbr_cwnd_gain = bbr.cwnd_gain()};
    return copy_out(&info, sizeof info, out);
  }

  /// sk_setsockopt: as an int or as 64 bits; all ones mean no limit.
  static Status set_max_pacing_rate(Endpoint& ep, Bytes value) {
    uint64_t rate = 0;
    uint32_t narrow = 0;
    if (value.size() < sizeof narrow) return Error{EINVAL};
    if (value.size() >= sizeof rate) {
      std::memcpy(&rate, value.data(), sizeof rate);
    } else {
      std::memcpy(&narrow, value.data(), sizeof narrow);
      rate = narrow == ~uint32_t{0} ? Sender::kUnpaced : narrow;
    }
    ep.awake_->tcb.snd.max_pacing_rate = rate;
    ep.settle();
    return {};
  }
  static Result<size_t> get_max_pacing_rate(Endpoint& ep, MutableBytes out) {
    uint64_t rate = ep.awake_->tcb.snd.max_pacing_rate;
    if (out.size() == sizeof rate) return copy_out(&rate, sizeof rate, out);
    auto narrow = static_cast<uint32_t>(std::min<uint64_t>(rate, ~uint32_t{0}));
    return copy_out(&narrow, sizeof narrow, out);
  }

  static Status set_nodelay(Endpoint& ep, int value) {
    ep.awake_->tcb.snd.nodelay = value != 0;
    if (value != 0) ep.settle();
    return {};
  }
  static Status set_cork(Endpoint& ep, int value) {
    ep.awake_->tcb.snd.cork = value != 0;
    if (value == 0) {
      ep.awake_->tcb.snd.more = false;
      ep.settle();
    }
    return {};
  }

  static Status set_max_segment(Endpoint& ep, int value) {
    if (value != 0 && (value < 88 || value > 32767)) return Error{EINVAL};
    ep.awake_->options.max_segment = static_cast<uint16_t>(value);
    return {};
  }
  static Result<int> get_max_segment(Endpoint& ep) {
    State state = ep.awake_->tcb.state;
    if (ep.awake_->options.max_segment != 0 && (state == State::closed || state == State::listen))
      return int{ep.awake_->options.max_segment};
    return static_cast<int>(ep.awake_->tcb.snd.mss());
  }

  static Status set_window_clamp(Endpoint& ep, int value) {
    if (value == 0) {
      if (ep.awake_->tcb.state != State::closed) return Error{EINVAL};
      ep.awake_->options.window_clamp = 0;
      return {};
    }
    ep.awake_->options.window_clamp = static_cast<uint32_t>(std::max(value, kLeastReceiveBuffer / 2));
    if (is_synchronized(ep.awake_->tcb.state))
      ep.awake_->tcb.rcv.window_clamp =
          std::min(ep.awake_->options.window_clamp, kMaxUnscaledWindow << ep.awake_->tcb.rcv.rcv_wscale);
    return {};
  }

  static Status set_quick_ack(Endpoint& ep, int value) {
    ep.awake_->tcb.rcv.set_quick_ack(value != 0);
    ep.settle();
    return {};
  }

  static Status set_fin_wait_2(Endpoint& ep, int value) {
    ep.awake_->options.fin_wait_2 = std::chrono::seconds(value < 0 ? -1 : std::min(value, 120));
    return {};
  }
  static Result<int> get_fin_wait_2(Endpoint& ep) {
    int value = seconds(ep.awake_->options.fin_wait_2);
    return value == 0 ? ep.protocol_.settings().tcp_fin_timeout : value;
  }

  template <Duration SocketOptions::*Field, int Most>
  static Status set_keepalive_time(Endpoint& ep, int value) {
    if (value < 1 || value > Most) return Error{EINVAL};
    ep.awake_->options.*Field = std::chrono::seconds(value);
    ep.start_keepalive();
    return {};
  }

  static Status set_congestion(Endpoint& ep, Bytes value) {
    if (value.empty()) return Error{EINVAL};
    // TCP_CA_NAME_MAX, 16 with the terminator; the name ends at a zero or where the value does.
    auto* text = reinterpret_cast<const char*>(value.data());
    // Not string_view::substr, which may throw.
    return ep.awake_->tcb.snd.congestion.select({text, strnlen(text, std::min<size_t>(value.size(), 15))});
  }
  static Result<size_t> get_congestion(Endpoint& ep, MutableBytes out) {
    std::array<char, 16> name{};
    std::string_view text = ep.awake_->tcb.snd.congestion->name();
    std::memcpy(name.data(), text.data(), std::min(text.size(), name.size() - 1));
    return copy_out(name.data(), name.size(), out);
  }

  static Status set_ttl(Endpoint& ep, int value) {
    if (value != -1 && (value < 1 || value > 255)) return Error{EINVAL};
    ep.awake_->options.ttl = value == -1 ? 0 : static_cast<uint8_t>(value);
    return {};
  }
  static Status set_tos(Endpoint& ep, int value) {
    // The ECN field is TCP's own (ip(7)).
    ep.awake_->options.tos = static_cast<uint8_t>(value & ~3);
    return {};
  }
  static Status set_mtu_discover(Endpoint& ep, int value) {
    if (value < 0 || value > 5) return Error{EINVAL};
    ep.awake_->options.pmtu_discovery = static_cast<PmtuDiscovery>(value);
    return {};
  }
  template <auto Field>
  static constexpr Row ipv6(int name) {
    return {.level = IPPROTO_IPV6,
            .name = name,
            .set_int =
                [](Endpoint& ep, int value) {
                  auto& field = ep.awake_->options.ipv6.*Field;
                  field = static_cast<std::remove_reference_t<decltype(field)>>(value);
                  return Status();
                },
            .get_int = [](Endpoint& ep) -> Result<int> {
              return static_cast<int>(ep.awake_->options.ipv6.*Field);
            }};
  }
  static Result<int> get_mtu(Endpoint& ep) {
    if (!ep.connected()) return Error{ENOTCONN};
    return static_cast<int>(ep.awake_->route.mtu());
  }

  // --- what only checkpointing uses (TCP_REPAIR): refused as to a program without CAP_NET_ADMIN ---
  template <int Code>
  static Status refuse(Endpoint&, int) {
    return Error{Code};
  }
  template <int Code>
  static Result<int> refuse_to_tell(Endpoint&) {
    return Error{Code};
  }
  template <int Value>
  static Result<int> always(Endpoint&) {
    return Value;
  }
  static Result<size_t> nothing(Endpoint&, MutableBytes) { return size_t{0}; }

  static Status set_upper_layer(Endpoint&, Bytes name) {
    // No upper layer protocol (TLS) is there, whatever its name.
    return Error{name.empty() ? EINVAL : ENOENT};
  }
  /// Linux takes what its clock can tell apart, two ticks at least.
  static Status set_duration(Duration& field, Duration value, Duration least, Duration most) {
    if (value < least || value > most) return Error{EINVAL};
    field = value;
    return {};
  }
  static Status set_rto_max(Endpoint& ep, int value) {
    return set_duration(ep.awake_->tcb.snd.rtt.bounds.most, std::chrono::milliseconds(value), 1s, kMaxRto);
  }
  static Status set_rto_min(Endpoint& ep, int value) {
    return set_duration(ep.awake_->tcb.snd.rtt.bounds.least, std::chrono::microseconds(value), kLeastTimeout,
                        kMinRto);
  }
  static Status set_ack_delay_max(Endpoint& ep, int value) {
    return set_duration(ep.awake_->tcb.rcv.max_ack_delay, std::chrono::microseconds(value), kLeastTimeout,
                        kMaxAckDelay);
  }
  static Status set_save_syn(Endpoint& ep, int value) {
    // 2, with the link's header, is not kept.
    if (value < 0 || value > 1) return Error{EINVAL};
    ep.awake_->options.save_syn = value != 0;
    return {};
  }
  static Result<size_t> get_saved_syn(Endpoint& ep, MutableBytes out) {
    if (ep.awake_->saved_syn.length > out.size()) return Error{EINVAL};
    // It is told once (tcp(7)).
    Slice syn = std::exchange(ep.awake_->saved_syn, Slice());
    if (syn.length == 0) return size_t{0};
    return copy_out(syn.bytes().data(), syn.length, out);
  }
  static Result<int> get_timestamp(Endpoint& ep) {
    return static_cast<int>(timestamp_clock(ep.protocol_.now(), ep.awake_->tcb.ts_offset));
  }

  // --- told as a structure ---
  static Result<size_t> get_peer_name(Endpoint& ep, MutableBytes out) {
    Result<SocketAddress> remote = ep.remote_address();
    if (!remote.ok()) return remote.error();
    sockaddr_in name{};
    // sk_getsockopt: what is longer than the address is refused, unlike anywhere else.
    if (out.size() > sizeof name) return Error{EINVAL};
    name.sin_family = AF_INET;
    store_be16(reinterpret_cast<std::byte*>(&name.sin_port), remote->port);
    std::memcpy(&name.sin_addr, remote->address.data(), sizeof name.sin_addr);
    return copy_out(&name, sizeof name, out);
  }
  static Result<size_t> get_peer_credentials(Endpoint&, MutableBytes out) {
    // Of a socket that has no process at the other end: nobody.
    const int32_t nobody[3] = {0, -1, -1};
    return copy_out(nobody, sizeof nobody, out);
  }
  static Result<size_t> get_cookie(Endpoint& ep, MutableBytes out) {
    if (out.size() < sizeof ep.awake_->cookie) return Error{EINVAL};
    if (ep.awake_->cookie == 0) ep.awake_->cookie = ++ep.protocol_.last_cookie;
    return copy_out(&ep.awake_->cookie, sizeof ep.awake_->cookie, out);
  }
  static Result<size_t> get_memory(Endpoint& ep, MutableBytes out) {
    // SK_MEMINFO_RMEM_ALLOC, RCVBUF, WMEM_ALLOC, SNDBUF, FWD_ALLOC, WMEM_QUEUED, OPTMEM, BACKLOG, DROPS.
    const uint32_t memory[9] = {ep.awake_->tcb.rcv.buffer.true_size(),
                                ep.awake_->tcb.rcv.limit,
                                0,
                                ep.awake_->options.send_limit,
                                0,
                                static_cast<uint32_t>(ep.awake_->tcb.snd.buffer.true_size()),
                                0,
                                ep.awake_->queue_bytes,
                                0};
    return copy_out(memory, sizeof memory, out);
  }
  /// struct so_timestamping, or its first member alone.
  template <bool New>
  static Status set_time_stamping(Endpoint& ep, Bytes value) {
    if (value.size() < sizeof(int)) return Error{EINVAL};
    uint32_t flags;
    std::memcpy(&flags, value.data(), sizeof flags);
    return ep.set_time_stamping(flags, New);
  }
  /// The newer option's flags are told by the newer option only.
  template <bool New>
  static Result<size_t> get_time_stamping(Endpoint& ep, MutableBytes out) {
    const TimeStamping& times = ep.awake_->options.times;
    const uint32_t told[2] = {!New || times.new_format ? times.flags : 0, 0};
    return copy_out(told, sizeof told, out);
  }
  template <bool New, bool Nanoseconds>
  static constexpr Row time_stamps(int name) {
    return {.level = SOL_SOCKET,
            .name = name,
            .set_int =
                [](Endpoint& ep, int value) {
                  TimeStamping& times = ep.awake_->options.times;
                  times.on_receive = value != 0;
                  times.nanoseconds = value != 0 && Nanoseconds;
                  if (value != 0) times.new_format = New;
                  return Status();
                },
            .get_int = [](Endpoint& ep) -> Result<int> {
              const TimeStamping& times = ep.awake_->options.times;
              return times.on_receive && times.new_format == New && times.nanoseconds == Nanoseconds ? 1 : 0;
            }};
  }
  static Result<size_t> get_two_zeros(Endpoint&, MutableBytes out) {
    const int32_t none[2] = {0, 0};
    return copy_out(none, sizeof none, out);
  }
  static Status set_buffer_lock(Endpoint& ep, int value) {
    if ((value & ~3) != 0) return Error{EINVAL};
    ep.awake_->options.send_limit_locked = (value & 1) != 0;
    ep.awake_->tcb.rcv.limit_locked = (value & 2) != 0;
    return {};
  }
  static Status set_thin_linear(Endpoint& ep, int value) {
    if (value < 0 || value > 1) return Error{EINVAL};
    ep.awake_->tcb.snd.thin_linear = value != 0;
    return {};
  }

  // --- refused after a look at the length ---
  template <size_t Bytes, int Code>
  static Status refuse_structure(Endpoint&, ustack::Bytes value) {
    return Error{value.size() < Bytes ? EINVAL : Code};
  }
  static Status set_device(Endpoint& ep, Bytes value) {
    Result<BoundDevice> device = read_device(ep.protocol_.network(), value);
    if (device.ok()) ep.awake_->options.device = *device;
    return device.status();
  }
  static Result<size_t> get_device(Endpoint& ep, MutableBytes out) {
    return write_device(ep.protocol_.network(), ep.awake_->options.device, out);
  }
  static Status set_ip_options(Endpoint&, Bytes value) {
    // None is ever sent.
    return value.empty() ? Status() : Status(Error{EINVAL});
  }
  static Result<size_t> get_repair_window(Endpoint&, MutableBytes out) {
    constexpr size_t kBytes = 20;  // tcp_repair_window
    return Error{out.size() != kBytes ? EINVAL : EPERM};
  }

  // --- Fast Open ---
  static bool before_connecting(const Endpoint& ep) {
    return ep.awake_->tcb.state == State::closed || ep.awake_->tcb.state == State::listen;
  }
  static Status set_fast_open(Endpoint& ep, int value) {
    if (value < 0 || !before_connecting(ep)) return Error{EINVAL};
    ep.awake_->options.fast_open_queue =
        static_cast<uint32_t>(std::min(value, ep.protocol_.settings().somaxconn));
    return {};
  }
  static Status set_fast_open_connect(Endpoint& ep, int value) {
    if (value < 0 || value > 1) return Error{EINVAL};
    if ((ep.protocol_.settings().tcp_fastopen & fast_open::kClient) == 0) return Error{EOPNOTSUPP};
    if (ep.awake_->tcb.state != State::closed) return Error{EINVAL};
    ep.awake_->options.fast_open_connect = value != 0;
    return {};
  }
  static Status set_fast_open_no_cookie(Endpoint& ep, int value) {
    if (value < 0 || value > 1 || !before_connecting(ep)) return Error{EINVAL};
    ep.awake_->options.fast_open_no_cookie = value != 0;
    return {};
  }
  static Status set_fast_open_keys(Endpoint& ep, Bytes value) {
    return ep.awake_->options.fast_open_keys.set(value) ? Status() : Status(Error{EINVAL});
  }
  static Result<size_t> get_fast_open_keys(Endpoint& ep, MutableBytes out) {
    const FastOpenKeys& own = ep.awake_->options.fast_open_keys;
    Bytes keys = (own.count != 0 ? own : ep.protocol_.fast_open_keys()).view();
    return copy_out(keys.data(), keys.size(), out);
  }

  template <Duration SocketOptions::*Field>
  static Status set_timeout(Endpoint& ep, Bytes value) {
    Result<Duration> timeout = read_timeout(value);
    if (timeout.ok()) ep.awake_->options.*Field = *timeout;
    return timeout.status();
  }
  template <Duration SocketOptions::*Field>
  static Result<size_t> get_timeout(Endpoint& ep, MutableBytes out) {
    return write_timeout(ep.awake_->options.*Field, out);
  }
};

/// The table is read at compile time only: as data its pointers would have to be relocated, a page written
/// before each program starts, whether it opens a socket or not.
struct OptionRows : OptionTable {
  static constexpr Row kRows[] = {
      // --- socket(7) ---
      // What others may bind later depends on it too.
      {.level = SOL_SOCKET,
       .name = SO_REUSEADDR,
       .set_int =
           [](Endpoint& ep, int value) {
             ep.awake_->options.reuse_address = ep.port_.reuse_address = value != 0;
             return Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.reuse_address ? 1 : 0; }},
      {.level = SOL_SOCKET,
       .name = SO_REUSEPORT,
       .set_int =
           [](Endpoint& ep, int value) {
             ep.awake_->options.reuse_port = ep.port_.reuse_port = value != 0;
             return Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.reuse_port ? 1 : 0; }},
      flag<&SocketOptions::out_of_band_inline>(SOL_SOCKET, SO_OOBINLINE),
      flag<&SocketOptions::dont_route>(SOL_SOCKET, SO_DONTROUTE),
      // Has no meaning for TCP in Linux either; it is remembered.
      flag<&SocketOptions::broadcast>(SOL_SOCKET, SO_BROADCAST),
      {.level = SOL_SOCKET,
       .name = SO_KEEPALIVE,
       .set_int =
           [](Endpoint& ep, int value) {
             ep.awake_->options.keepalive = value != 0;
             ep.awake_->keepalive_probes = 0;
             ep.start_keepalive();
             return Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.keepalive ? 1 : 0; }},
      {.level = SOL_SOCKET,
       .name = SO_MAX_PACING_RATE,
       .set = &set_max_pacing_rate,
       .get = &get_max_pacing_rate},
      {.level = SOL_SOCKET, .name = SO_LINGER, .set = &set_linger, .get = &get_linger},
      {.level = SOL_SOCKET,
       .name = SO_SNDBUF,
       .set_int = [](Endpoint& ep,
                     int value) { return set_send_buffer(ep, value, ep.protocol_.settings().wmem_max); },
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(ep.awake_->options.send_limit);
       }},
      {.level = SOL_SOCKET,
       .name = SO_RCVBUF,
       .set_int = [](Endpoint& ep,
                     int value) { return set_receive_buffer(ep, value, ep.protocol_.settings().rmem_max); },
       .get_int = [](Endpoint& ep) -> Result<int> { return static_cast<int>(ep.awake_->tcb.rcv.limit); }},
      // The host is the program's own, so the program is its administrator.
      {.level = SOL_SOCKET,
       .name = SO_SNDBUFFORCE,
       .set_int = [](Endpoint& ep,
                     int value) { return set_send_buffer(ep, std::max(value, 0), INT_MAX / 2); }},
      {.level = SOL_SOCKET,
       .name = SO_RCVBUFFORCE,
       .set_int = [](Endpoint& ep,
                     int value) { return set_receive_buffer(ep, std::max(value, 0), INT_MAX / 2); }},
      {.level = SOL_SOCKET,
       .name = SO_RCVLOWAT,
       .set_int = &set_low_water,
       .get_int = [](Endpoint& ep) -> Result<int> { return static_cast<int>(ep.awake_->tcb.rcv.low_water); }},
      {.level = SOL_SOCKET, .name = SO_SNDLOWAT, .get_int = [](Endpoint&) -> Result<int> { return 1; }},
      {.level = SOL_SOCKET,
       .name = SO_RCVTIMEO,
       .set = &set_timeout<&SocketOptions::receive_timeout>,
       .get = &get_timeout<&SocketOptions::receive_timeout>},
      {.level = SOL_SOCKET,
       .name = SO_SNDTIMEO,
       .set = &set_timeout<&SocketOptions::send_timeout>,
       .get = &get_timeout<&SocketOptions::send_timeout>},
      {.level = SOL_SOCKET,
       .name = SO_ERROR,
       .get_int = [](Endpoint& ep) -> Result<int> {
         int error = ep.take_error();
         return error != 0 ? error : std::exchange(ep.awake_->soft_error, 0);
       }},
      {.level = SOL_SOCKET,
       .name = SO_TYPE,
       .get_int = [](Endpoint&) -> Result<int> { return int{SOCK_STREAM}; }},
      {.level = SOL_SOCKET,
       .name = SO_PROTOCOL,
       .get_int = [](Endpoint&) -> Result<int> { return int{IPPROTO_TCP}; }},
      {.level = SOL_SOCKET,
       .name = SO_DOMAIN,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return ep.family() == Family::ipv6 ? AF_INET6 : AF_INET;
       }},
      {.level = SOL_SOCKET,
       .name = SO_ACCEPTCONN,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->listener != nullptr ? 1 : 0; }},
      {.level = SOL_SOCKET,
       .name = SO_RCVTIMEO_NEW,
       .set = &set_timeout<&SocketOptions::receive_timeout>,
       .get = &get_timeout<&SocketOptions::receive_timeout>},
      {.level = SOL_SOCKET,
       .name = SO_SNDTIMEO_NEW,
       .set = &set_timeout<&SocketOptions::send_timeout>,
       .get = &get_timeout<&SocketOptions::send_timeout>},
      time_stamps<false, false>(SO_TIMESTAMP),
      time_stamps<false, true>(SO_TIMESTAMPNS),
      time_stamps<true, false>(SO_TIMESTAMP_NEW),
      time_stamps<true, true>(SO_TIMESTAMPNS_NEW),
      {.level = SOL_SOCKET,
       .name = SO_TIMESTAMPING,
       .set = &set_time_stamping<false>,
       .get = &get_time_stamping<false>},
      {.level = SOL_SOCKET,
       .name = SO_TIMESTAMPING_NEW,
       .set = &set_time_stamping<true>,
       .get = &get_time_stamping<true>},
      {.level = SOL_SOCKET,
       .name = SO_ZEROCOPY,
       .set_int = [](Endpoint& ep, int value) -> Status {
         if (value < 0 || value > 1) return Error{EINVAL};
         ep.awake_->options.zero_copy = value != 0;
         ep.update_telling();
         return {};
       },
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.zero_copy ? 1 : 0; }},
      {.level = SOL_SOCKET, .name = SO_PEERNAME, .get = &get_peer_name},
      {.level = SOL_SOCKET, .name = SO_PEERCRED, .get = &get_peer_credentials},
      {.level = SOL_SOCKET, .name = SO_COOKIE, .get = &get_cookie},
      {.level = SOL_SOCKET, .name = SO_MEMINFO, .get = &get_memory},
      {.level = SOL_SOCKET, .name = SO_TXTIME, .set_int = &refuse<EINVAL>, .get = &get_two_zeros},
      {.level = SOL_SOCKET,
       .name = kBufferLock,
       .set_int = &set_buffer_lock,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return (ep.awake_->options.send_limit_locked ? 1 : 0) | (ep.awake_->tcb.rcv.limit_locked ? 2 : 0);
       }},
      {.level = SOL_SOCKET, .name = SO_BINDTODEVICE, .set = &set_device, .get = &get_device},
      // Filters: there is nothing that would run one.
      {.level = SOL_SOCKET,
       .name = SO_ATTACH_FILTER,
       .set = &refuse_structure<16, ENOPROTOOPT>,
       .get = &nothing},
      {.level = SOL_SOCKET, .name = SO_ATTACH_REUSEPORT_CBPF, .set = &refuse_structure<16, ENOPROTOOPT>},

      // --- tcp(7) ---
      {.level = IPPROTO_TCP,
       .name = TCP_NODELAY,
       .set_int = &set_nodelay,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->tcb.snd.nodelay ? 1 : 0; }},
      {.level = IPPROTO_TCP,
       .name = TCP_CORK,
       .set_int = &set_cork,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->tcb.snd.cork ? 1 : 0; }},
      {.level = IPPROTO_TCP, .name = TCP_MAXSEG, .set_int = &set_max_segment, .get_int = &get_max_segment},
      {.level = IPPROTO_TCP,
       .name = TCP_KEEPIDLE,
       .set_int = &set_keepalive_time<&SocketOptions::keepalive_idle, 32767>,
       .get_int = [](Endpoint& ep) -> Result<int> { return seconds(ep.keepalive_idle()); }},
      {.level = IPPROTO_TCP,
       .name = TCP_KEEPINTVL,
       .set_int = &set_keepalive_time<&SocketOptions::keepalive_interval, 32767>,
       .get_int = [](Endpoint& ep) -> Result<int> { return seconds(ep.keepalive_interval()); }},
      {.level = IPPROTO_TCP,
       .name = TCP_KEEPCNT,
       .set_int = [](Endpoint& ep, int value) -> Status {
         if (value < 1 || value > 127) return Error{EINVAL};
         ep.awake_->options.keepalive_count = static_cast<uint32_t>(value);
         return {};
       },
       .get_int = [](Endpoint& ep) -> Result<int> { return static_cast<int>(ep.keepalive_count()); }},
      {.level = IPPROTO_TCP,
       .name = TCP_SYNCNT,
       .set_int = [](Endpoint& ep, int value) -> Status {
         if (value < 1 || value > 127) return Error{EINVAL};
         ep.awake_->options.syn_retries = static_cast<uint8_t>(value);
         return {};
       },
       .get_int = [](Endpoint& ep) -> Result<int> {
         return ep.awake_->options.syn_retries != 0 ? int{ep.awake_->options.syn_retries}
                                                    : ep.protocol_.settings().tcp_syn_retries;
       }},
      {.level = IPPROTO_TCP, .name = TCP_LINGER2, .set_int = &set_fin_wait_2, .get_int = &get_fin_wait_2},
      {.level = IPPROTO_TCP,
       .name = TCP_DEFER_ACCEPT,
       .set_int =
           [](Endpoint& ep, int value) {
             ep.awake_->options.defer_accept = seconds_to_timeouts(value);
             return Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> {
         return timeouts_to_seconds(ep.awake_->options.defer_accept);
       }},
      {.level = IPPROTO_TCP,
       .name = TCP_WINDOW_CLAMP,
       .set_int = &set_window_clamp,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(ep.awake_->options.window_clamp);
       }},
      {.level = IPPROTO_TCP,
       .name = TCP_QUICKACK,
       .set_int = &set_quick_ack,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->tcb.rcv.interactive() ? 0 : 1; }},
      {.level = IPPROTO_TCP, .name = TCP_CONGESTION, .set = &set_congestion, .get = &get_congestion},
      {.level = IPPROTO_TCP,
       .name = TCP_USER_TIMEOUT,
       .set_int = [](Endpoint& ep, int value) -> Status {
         if (value < 0) return Error{EINVAL};
         ep.awake_->options.user_timeout = std::chrono::milliseconds(value);
         return {};
       },
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(to_ms(ep.awake_->options.user_timeout));
       }},
      {.level = IPPROTO_TCP,
       .name = TCP_NOTSENT_LOWAT,
       .set_int =
           [](Endpoint& ep, int value) {
             ep.awake_->tcb.snd.notsent_lowat = static_cast<uint32_t>(value);
             if (may_send(ep.awake_->tcb.state) && ep.can_write()) ep.wake(ready::kOut | ready::kWrNorm);
             return Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(ep.awake_->tcb.snd.notsent_lowat);
       }},
      {.level = IPPROTO_TCP,
       .name = TCP_FASTOPEN,
       .set_int = &set_fast_open,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(ep.awake_->options.fast_open_queue);
       }},
      {.level = IPPROTO_TCP,
       .name = TCP_FASTOPEN_CONNECT,
       .set_int = &set_fast_open_connect,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.fast_open_connect ? 1 : 0; }},
      {.level = IPPROTO_TCP,
       .name = TCP_FASTOPEN_NO_COOKIE,
       .set_int = &set_fast_open_no_cookie,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.fast_open_no_cookie ? 1 : 0; }},
      {.level = IPPROTO_TCP,
       .name = TCP_SAVE_SYN,
       .set_int = &set_save_syn,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->options.save_syn ? 1 : 0; }},
      {.level = IPPROTO_TCP, .name = TCP_SAVED_SYN, .get = &get_saved_syn},
      {.level = IPPROTO_TCP,
       .name = kRtoMaxMs,
       .set_int = &set_rto_max,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(to_ms(ep.awake_->tcb.snd.rtt.bounds.most));
       }},
      {.level = IPPROTO_TCP,
       .name = kRtoMinUs,
       .set_int = &set_rto_min,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(to_us(ep.awake_->tcb.snd.rtt.bounds.least));
       }},
      {.level = IPPROTO_TCP,
       .name = kAckDelayMaxUs,
       .set_int = &set_ack_delay_max,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(to_us(ep.awake_->tcb.rcv.max_ack_delay));
       }},
      {.level = IPPROTO_TCP, .name = TCP_TIMESTAMP, .set_int = &refuse<EPERM>, .get_int = &get_timestamp},
      // Linux has given up what it once did; 0 or 1 are taken as ever.
      {.level = IPPROTO_TCP,
       .name = TCP_THIN_DUPACK,
       .set_int = [](Endpoint&,
                     int value) { return value < 0 || value > 1 ? Status(Error{EINVAL}) : Status(); },
       .get_int = &always<0>},
      {.level = IPPROTO_TCP, .name = TCP_ULP, .set = &set_upper_layer, .get = &nothing},
      {.level = IPPROTO_TCP, .name = TCP_CC_INFO, .get = &get_congestion_info},
      {.level = IPPROTO_TCP, .name = TCP_ZEROCOPY_RECEIVE, .get_int = &refuse_to_tell<EINVAL>},
      {.level = IPPROTO_TCP, .name = TCP_REPAIR, .set_int = &refuse<EPERM>, .get_int = &always<0>},
      {.level = IPPROTO_TCP,
       .name = TCP_REPAIR_QUEUE,
       .set_int = &refuse<EPERM>,
       .get_int = &refuse_to_tell<EINVAL>},
      {.level = IPPROTO_TCP,
       .name = TCP_QUEUE_SEQ,
       .set_int = [](Endpoint& ep,
                     int) { return Status(Error{ep.awake_->tcb.state == State::closed ? EINVAL : EPERM}); },
       .get_int = &refuse_to_tell<EINVAL>},
      {.level = IPPROTO_TCP, .name = TCP_REPAIR_OPTIONS, .set_int = &refuse<EINVAL>},
      {.level = IPPROTO_TCP, .name = TCP_REPAIR_WINDOW, .set_int = &refuse<EPERM>, .get = &get_repair_window},
      {.level = IPPROTO_TCP,
       .name = kThinLinearTimeouts,
       .set_int = &set_thin_linear,
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.awake_->tcb.snd.thin_linear ? 1 : 0; }},
      {.level = IPPROTO_TCP, .name = TCP_MD5SIG, .set = &refuse_structure<216, ENOPROTOOPT>},
      {.level = IPPROTO_TCP, .name = TCP_MD5SIG_EXT, .set = &refuse_structure<216, ENOPROTOOPT>},
      {.level = IPPROTO_TCP, .name = kIsMptcp, .get_int = &always<0>},
      {.level = IPPROTO_TCP,
       .name = TCP_FASTOPEN_KEY,
       .set = &set_fast_open_keys,
       .get = &get_fast_open_keys},
      {.level = IPPROTO_TCP,
       .name = TCP_INFO,
       .get = [](Endpoint& ep,
                 MutableBytes out) -> Result<size_t> { return fill_tcp_info(ep, out, ep.protocol_.now()); }},

      // --- ip(7) ---
      {.level = IPPROTO_IP,
       .name = IP_TOS,
       .set_int = &set_tos,
       .get_int = [](Endpoint& ep) -> Result<int> { return int{ep.awake_->options.tos}; }},
      {.level = IPPROTO_IP,
       .name = IP_TTL,
       .set_int = &set_ttl,
       .get_int = [](Endpoint& ep) -> Result<int> { return int{ep.ip_options().ttl}; }},
      {.level = IPPROTO_IP, .name = IP_OPTIONS, .set = &set_ip_options, .get = &nothing},
      {.level = IPPROTO_IP, .name = IP_PKTOPTIONS, .get = &nothing},
      // ip_getsockopt: inet_num, which is the port.
      {.level = IPPROTO_IP,
       .name = kIpProtocol,
       .get_int = [](Endpoint& ep) -> Result<int> { return int{ep.awake_->local.port}; }},
      {.level = IPPROTO_IP, .name = IP_MTU, .get_int = &get_mtu},
      {.level = IPPROTO_IP,
       .name = IP_MTU_DISCOVER,
       .set_int = &set_mtu_discover,
       .get_int = [](Endpoint& ep) -> Result<int> {
         return static_cast<int>(ep.awake_->options.pmtu_discovery);
       }},
      flag<&SocketOptions::bind_address_no_port>(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
      flag<&SocketOptions::receive_errors>(IPPROTO_IP, IP_RECVERR),

      // --- ipv6(7): values that DualStack has found good ---
      ipv6<&Ipv6Options::v6_only>(IPV6_V6ONLY),
      {.level = IPPROTO_IPV6,
       .name = IPV6_UNICAST_HOPS,
       .set_int = ipv6<&Ipv6Options::hop_limit>(IPV6_UNICAST_HOPS).set_int,
       .get_int = [](Endpoint& ep) -> Result<int> {
         const int16_t chosen = ep.awake_->options.ipv6.hop_limit;
         return chosen >= 0 ? int{chosen} : int{ep.protocol_.settings().ipv6_hop_limit};
       }},
      ipv6<&Ipv6Options::traffic_class>(IPV6_TCLASS),
      ipv6<&Ipv6Options::least_hops>(IPV6_MINHOPCOUNT),
      ipv6<&Ipv6Options::pmtu_discovery>(IPV6_MTU_DISCOVER),
      ipv6<&Ipv6Options::receive_errors>(IPV6_RECVERR),
      ipv6<&Ipv6Options::flow_label>(IPV6_AUTOFLOWLABEL),
      {.level = IPPROTO_IPV6,
       .name = IPV6_MTU,
       // It is how large packets may be that are cut: no segment is.
       .set_int =
           [](Endpoint&, int value) {
             return value != 0 && value < static_cast<int>(Ipv6Header::kLeastMtu) ? Status(Error{EINVAL})
                                                                                  : Status();
           },
       .get_int = [](Endpoint& ep) -> Result<int> { return ep.over_ipv6() ? get_mtu(ep) : Error{ENOTCONN}; }},
  };

  /// Calls f with the row, wrapped so that it can use it as a constant; false: there is none.
  template <typename F>
  static bool with(int level, int name, F&& f) {
    return [&]<size_t... I>(std::index_sequence<I...>) {
      return ((kRows[I].level == level && kRows[I].name == name && (f(Constant<I>()), true)) || ...);
    }
    (std::make_index_sequence<std::size(kRows)>());
  }

 private:
  template <size_t I>
  struct Constant {
    static constexpr Row value = kRows[I];
  };
};

Status Endpoint::set_option(int level, int name, Bytes value) {
  if (!ensure_awake()) return Error{ENOBUFS};
  Status result = set_own_option(level, name, value);
  if (result.ok() && awake_->listener != nullptr) tell_siblings_options();
  return result;
}

Status Endpoint::set_own_option(int level, int name, Bytes value) {
  const Result<int> number = read_number(level, value);
  Status result = number.status();
  const bool known = level != IPPROTO_IPV6 || family_ == Family::ipv6;
  const bool found =
      known && OptionRows::with(level, name, [&](auto constant) {
        constexpr OptionTable::Row row = constant.value;
        if constexpr (row.set != nullptr)
          result = row.set(*this, value);
        else if (number.ok())
          result = row.set_int != nullptr ? row.set_int(*this, *number) : Status(Error{ENOPROTOOPT});
      });
  if (found || !number.ok()) return result;
  return awake_->options.plain.set(level, name, *number, value.size());
}

Result<size_t> Endpoint::get_option(int level, int name, MutableBytes out) {
  if (!ensure_awake()) return Error{ENOBUFS};
  // As Linux, which looks for an unknown level in IP last (do_ip_getsockopt).
  if (level != SOL_SOCKET && level != IPPROTO_TCP && level != IPPROTO_IP &&
      (level != IPPROTO_IPV6 || family_ != Family::ipv6))
    return Error{EOPNOTSUPP};
  Result<size_t> structure = size_t{0};
  Result<int> number = Error{ENOPROTOOPT};
  bool is_structure = false;
  const bool found = OptionRows::with(level, name, [&](auto constant) {
    constexpr OptionTable::Row row = constant.value;
    if constexpr (row.get != nullptr) {
      structure = row.get(*this, out);
      is_structure = true;
    } else if constexpr (row.get_int != nullptr) {
      number = row.get_int(*this);
    }
  });
  if (is_structure) return structure;
  if (!found) number = awake_->options.plain.get(level, name);
  if (!number.ok()) return number.error();
  return write_number(level, *number, out);
}

}  // namespace ustack::tcp
