// Packetization layer path MTU discovery (RFC 4821): finds the path's MTU by larger and larger segments of
// data, where ICMP can't be relied on. Which MTU to use and to try; the endpoint sends and judges.
//
//   search_low <= path MTU <= search_high        a probe lies half-way, its fate halves the range
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/settings.h"

namespace ustack::tcp {

/// One connection's search. MTUs in bytes of IP packets. Lock: the host's.
class MtuProber {
 public:
  static constexpr uint32_t kNoLimit = 0xffffffff;

  /// The connection is established over a path whose links take `path_mtu`; `headers` are IP's and TCP's
  /// without options. net.ipv4.tcp_mtu_probing: 0 never, 1 once a black hole was found, 2 from the start.
  void start(const Settings& settings, uint32_t path_mtu, uint32_t headers) {
    headers_ = headers;
    search_low_ = std::min(static_cast<uint32_t>(settings.tcp_base_mss) + headers, path_mtu);
    search_high_ = path_mtu;
    enabled_ = settings.tcp_mtu_probing == 2;
  }

  bool enabled() const { return enabled_; }
  /// No packet but a probe may be larger.
  uint32_t limit() const { return enabled_ ? search_low_ : kNoLimit; }
  uint32_t search_low() const { return search_low_; }
  uint32_t search_high() const { return search_high_; }

  /// Time-out after time-out with full-sized segments in flight: whether a smaller MTU should be tried
  /// (Linux's tcp_mtu_probing). First the search begins, at tcp_base_mss; then that is halved, down to
  /// tcp_mtu_probe_floor.
  bool on_black_hole(const Settings& settings) {
    if (settings.tcp_mtu_probing == 0) return false;
    probing_ = false;
    if (!enabled_) {
      enabled_ = true;
      return true;
    }
    uint32_t mss = std::min(static_cast<uint32_t>(settings.tcp_base_mss), (search_low_ - headers_) / 2);
    mss = std::max({mss, static_cast<uint32_t>(settings.tcp_mtu_probe_floor),
                    static_cast<uint32_t>(settings.tcp_min_snd_mss)});
    uint32_t low = mss + headers_;
    bool smaller = low < search_low_;
    search_low_ = std::min(search_low_, low);
    return smaller;
  }

  /// The MTU to try now, 0: none. `path_mtu` is what ICMP and the link allow.
  uint32_t next_probe(const Settings& settings, uint32_t path_mtu, Instant now) {
    if (!enabled_ || probing_) return 0;
    search_high_ = std::min(search_high_, path_mtu);
    if (search_low_ + static_cast<uint32_t>(settings.tcp_probe_threshold) > search_high_) {
      // RFC 4821, 7.3: the search has ended; the path may change. Some time later it begins anew.
      if (ended_at_ == kNever) ended_at_ = now;
      if (now - ended_at_ < std::chrono::seconds(settings.tcp_probe_interval)) return 0;
      ended_at_ = kNever;
      search_high_ = path_mtu;
      if (search_low_ + static_cast<uint32_t>(settings.tcp_probe_threshold) > search_high_) return 0;
    }
    return (search_low_ + search_high_) / 2;
  }
  /// It was sent as the sequence numbers start..end-1.
  void on_sent(uint32_t mtu, SeqNum start, SeqNum end) {
    probing_ = true;
    mtu_ = mtu;
    start_ = start;
    end_ = end;
  }
  bool probing() const { return probing_; }
  SeqNum start() const { return start_; }
  SeqNum end() const { return end_; }
  /// It was acknowledged: that much goes through.
  void on_success() {
    probing_ = false;
    search_low_ = std::max(search_low_, mtu_);
  }
  /// It got lost: that much does not.
  void on_failure() {
    probing_ = false;
    search_high_ = std::max(std::min(search_high_, mtu_ - 1), search_low_);
  }

 private:
  bool enabled_ = false;
  bool probing_ = false;
  uint32_t headers_ = 40;
  uint32_t search_low_ = 0, search_high_ = 0;
  uint32_t mtu_ = 0;
  SeqNum start_, end_;
  Instant ended_at_ = kNever;
};

}  // namespace ustack::tcp
