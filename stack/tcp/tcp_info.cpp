#include "stack/tcp/tcp_info.h"

#include <linux/netlink.h>
#include <linux/tcp.h>

#include <algorithm>
#include <cstring>

#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

namespace {

/// With what newer kernels have behind what every header knows (include/uapi/linux/tcp.h, 6.17).
struct Info : tcp_info {
  uint32_t tcpi_rcv_wnd;
  uint32_t tcpi_rehash;
  uint16_t tcpi_total_rto, tcpi_total_rto_recoveries;
  uint32_t tcpi_total_rto_time;
};

uint32_t us(Duration d) { return static_cast<uint32_t>(to_us(d)); }

uint64_t us64(Duration d) { return static_cast<uint64_t>(to_us(d)); }

uint32_t ms_since(Instant then, Instant now) {
  return then == Instant{} ? 0 : static_cast<uint32_t>(std::max<int64_t>(to_ms(now - then), 0));
}

}  // namespace

size_t fill_tcp_info(Endpoint& endpoint, MutableBytes out, Instant now) {
  Info info;
  std::memset(static_cast<void*>(&info), 0, sizeof info);
  Tcb& tcb = endpoint.tcb();
  const Sender& snd = tcb.snd;
  Receiver& rcv = tcb.rcv;
  uint32_t mss = std::max(snd.mss(), 1u);
  auto segments = [mss](uint32_t bytes) { return (bytes + mss - 1) / mss; };

  info.tcpi_state = linux_state(tcb.state);
  info.tcpi_ca_state = static_cast<uint8_t>(snd.congestion_state());
  info.tcpi_retransmits = static_cast<uint8_t>(std::min(snd.timeouts(), 255u));
  info.tcpi_probes = static_cast<uint8_t>(std::min(snd.probes(), 255u));
  info.tcpi_backoff = static_cast<uint8_t>(std::min(snd.rtt.back_off_count(), 255u));
  if (tcb.timestamps) info.tcpi_options |= TCPI_OPT_TIMESTAMPS;
  if (tcb.sack) info.tcpi_options |= TCPI_OPT_SACK;
  if (tcb.window_scaling) info.tcpi_options |= TCPI_OPT_WSCALE;
  if (snd.ecn) info.tcpi_options |= TCPI_OPT_ECN;
  if (rcv.ecn_seen()) info.tcpi_options |= TCPI_OPT_ECN_SEEN;
  if (endpoint.syn_data_acknowledged()) info.tcpi_options |= TCPI_OPT_SYN_DATA;
  info.tcpi_fastopen_client_fail = static_cast<uint8_t>(endpoint.fast_open_failure()) & 3;
  info.tcpi_snd_wscale = snd.snd_wscale & 15;
  info.tcpi_rcv_wscale = rcv.rcv_wscale & 15;
  info.tcpi_rto = us(snd.rtt.rto());
  info.tcpi_ato = us(rcv.ack_timeout());
  info.tcpi_snd_mss = snd.mss();
  info.tcpi_rcv_mss = rcv.mss_estimate();
  info.tcpi_unacked = snd.flight().outstanding_segments();
  info.tcpi_sacked = snd.flight().sacked_segments();
  info.tcpi_lost = snd.flight().lost_segments();
  info.tcpi_retrans = snd.flight().retransmitted_segments();
  if (tcb.state == State::listen) {
    // As Linux: the accept queue's length and limit.
    info.tcpi_unacked = endpoint.accept_queue_length();
    info.tcpi_sacked = endpoint.accept_queue_limit();
  }
  info.tcpi_last_data_sent = ms_since(snd.last_sent(), now);
  info.tcpi_last_data_recv = ms_since(rcv.last_arrival(), now);
  info.tcpi_last_ack_recv = ms_since(tcb.last_heard, now);
  if (is_synchronized(tcb.state)) info.tcpi_pmtu = endpoint.route().mtu();
  info.tcpi_rcv_ssthresh = std::min(window_from_space(rcv.limit), rcv.window_clamp);
  info.tcpi_rtt = us(snd.rtt.srtt());
  info.tcpi_rttvar = us(snd.rtt.rttvar());
  info.tcpi_min_rtt = us(snd.rtt.minimum());
  uint32_t ssthresh = snd.congestion->ssthresh();
  info.tcpi_snd_ssthresh = ssthresh == 0x7fffffff ? ssthresh : ssthresh / mss;
  info.tcpi_snd_cwnd = snd.cwnd() / mss;
  info.tcpi_advmss = rcv.advertised_mss();
  info.tcpi_reordering = snd.recovery().reordering();
  info.tcpi_reord_seen = snd.recovery().reordering_seen();
  info.tcpi_dsack_dups = snd.recovery().dsack_duplicates();
  info.tcpi_delivered_ce = segments(static_cast<uint32_t>(snd.delivered_marked()));
  info.tcpi_delivered = segments(static_cast<uint32_t>(snd.flight().rate().delivered()));
  info.tcpi_pacing_rate = snd.pacing_rate();
  info.tcpi_max_pacing_rate = snd.max_pacing_rate;
  info.tcpi_delivery_rate = snd.rate().bytes_per_second();
  info.tcpi_delivery_rate_app_limited = snd.rate().app_limited;
  info.tcpi_rcv_space = window_from_space(rcv.limit);
  info.tcpi_total_retrans = snd.retransmitted_segments();
  info.tcpi_bytes_acked = snd.bytes_acknowledged();
  info.tcpi_bytes_received = rcv.bytes_received();
  info.tcpi_notsent_bytes = snd.unsent();
  info.tcpi_bytes_sent = snd.bytes_sent() + snd.bytes_retransmitted();
  info.tcpi_bytes_retrans = snd.bytes_retransmitted();
  info.tcpi_rcv_ooopack = tcb.traffic.out_of_order;
  info.tcpi_rcv_rtt = us(rcv.window_rtt());
  info.tcpi_segs_in = tcb.traffic.segments_in;
  info.tcpi_segs_out = tcb.traffic.segments_out;
  info.tcpi_data_segs_in = tcb.traffic.data_segments_in;
  info.tcpi_data_segs_out = tcb.traffic.data_segments_out;
  info.tcpi_busy_time = us64(tcb.send_times.busy(now));
  info.tcpi_rwnd_limited = us64(tcb.send_times.window_limited(now));
  info.tcpi_sndbuf_limited = us64(tcb.send_times.buffer_limited(now));
  info.tcpi_snd_wnd = snd.snd_wnd;
  info.tcpi_rcv_wnd = rcv.rcv_wnd();
  TimeoutTotals timeouts = snd.timeout_totals();
  timeouts.end(now);
  info.tcpi_total_rto = timeouts.count;
  info.tcpi_total_rto_recoveries = timeouts.recoveries;
  info.tcpi_total_rto_time = static_cast<uint32_t>(to_ms(timeouts.time));

  size_t length = std::min(out.size(), sizeof info);
  std::memcpy(out.data(), &info, length);
  return length;
}

namespace {

/// Puts netlink attributes one behind the other (netlink(7)).
class Attributes {
 public:
  explicit Attributes(MutableBytes out) : out_(out) {}
  template <typename T>
  void put(uint16_t type, T value) {
    const nlattr head{.nla_len = static_cast<uint16_t>(NLA_HDRLEN + sizeof value), .nla_type = type};
    const size_t takes = NLA_ALIGN(head.nla_len);
    if (out_.size() - size_ < takes) return;
    std::memset(out_.data() + size_, 0, takes);
    std::memcpy(out_.data() + size_, &head, sizeof head);
    std::memcpy(out_.data() + size_ + NLA_HDRLEN, &value, sizeof value);
    size_ += takes;
  }
  size_t size() const { return size_; }

 private:
  MutableBytes out_;
  size_t size_ = 0;
};

}  // namespace

size_t fill_statistics(Endpoint& endpoint, MutableBytes out, Instant now) {
  tcp_info info{};
  fill_tcp_info(endpoint, MutableBytes(reinterpret_cast<std::byte*>(&info), sizeof info), now);
  Attributes to(out);
  to.put<uint64_t>(TCP_NLA_BUSY, info.tcpi_busy_time);
  to.put<uint64_t>(TCP_NLA_RWND_LIMITED, info.tcpi_rwnd_limited);
  to.put<uint64_t>(TCP_NLA_SNDBUF_LIMITED, info.tcpi_sndbuf_limited);
  to.put<uint64_t>(TCP_NLA_DATA_SEGS_OUT, info.tcpi_data_segs_out);
  to.put<uint64_t>(TCP_NLA_TOTAL_RETRANS, info.tcpi_total_retrans);
  to.put<uint64_t>(TCP_NLA_PACING_RATE, info.tcpi_pacing_rate);
  to.put<uint64_t>(TCP_NLA_DELIVERY_RATE, info.tcpi_delivery_rate);
  to.put<uint32_t>(TCP_NLA_SND_CWND, info.tcpi_snd_cwnd);
  to.put<uint32_t>(TCP_NLA_REORDERING, info.tcpi_reordering);
  to.put<uint32_t>(TCP_NLA_MIN_RTT, info.tcpi_min_rtt);
  to.put<uint8_t>(TCP_NLA_RECUR_RETRANS, info.tcpi_retransmits);
  to.put<uint8_t>(TCP_NLA_DELIVERY_RATE_APP_LMT, info.tcpi_delivery_rate_app_limited);
  to.put<uint32_t>(TCP_NLA_SND_SSTHRESH, info.tcpi_snd_ssthresh);
  to.put<uint32_t>(TCP_NLA_DELIVERED, info.tcpi_delivered);
  to.put<uint32_t>(TCP_NLA_DELIVERED_CE, info.tcpi_delivered_ce);
  to.put<uint32_t>(TCP_NLA_SNDQ_SIZE, endpoint.tcb().snd.buffer.size());
  to.put<uint8_t>(TCP_NLA_CA_STATE, info.tcpi_ca_state);
  to.put<uint64_t>(TCP_NLA_BYTES_SENT, info.tcpi_bytes_sent);
  to.put<uint64_t>(TCP_NLA_BYTES_RETRANS, info.tcpi_bytes_retrans);
  to.put<uint32_t>(TCP_NLA_DSACK_DUPS, info.tcpi_dsack_dups);
  to.put<uint32_t>(TCP_NLA_REORD_SEEN, info.tcpi_reord_seen);
  to.put<uint32_t>(TCP_NLA_SRTT, info.tcpi_rtt);
  to.put<uint16_t>(TCP_NLA_TIMEOUT_REHASH, 0);
  to.put<uint32_t>(TCP_NLA_BYTES_NOTSENT, info.tcpi_notsent_bytes);
  return to.size();
}

}  // namespace ustack::tcp
