// The handshake with data in its first segments (RFC 7413).
#include <algorithm>

#include "stack/tcp/endpoint.h"
#include "stack/tcp/handshake.h"

namespace ustack::tcp {

/// RFC 7413, 4.1.3: the cookie and as much of the program's data as the SYN can take; or the request for a
/// cookie.
void Handshake::add_syn_data(SynOptions& options, TxFrame& frame) {
  const FastOpenCache::Entry* known = ep_.protocol_.fast_open().find(ep_.id().remote.address);
  bool usable = ep_.protocol_.fast_open().usable(ep_.id().remote.address);
  if (known != nullptr && !usable) return;
  options.fast_open = known != nullptr ? known->cookie : FastOpenCookie();
  if (!ep_.fast_open_possible()) return;
  // Without a cookie by choice: no request for one either.
  if (options.fast_open->length == 0) options.fast_open.reset();
  std::array<std::byte, kMaxOptions> buffer;
  uint32_t length = encode_syn_options(options, buffer);
  uint32_t most = own_mss_;
  if (known != nullptr && known->mss != 0) most = std::min<uint32_t>(most, known->mss);
  SendBuffer& data = ep_.awake_->tcb.snd.buffer;
  uint32_t room = most > length ? most - length : 0;
  syn_data_ = data.slices(0, std::min(data.size(), room), frame);
  // What ICMP errors are checked against.
  ep_.awake_->tcb.snd.snd_nxt = iss_ + 1 + syn_data_;
}

/// The SYN-ACK says what became of it (Linux's tcp_rcv_fastopen_synack).
void Handshake::take_fast_open_answer(const Segment& segment) {
  if (!ep_.fast_open_) return;
  Counters& counters = ep_.protocol_.counters();
  FastOpenCache& cache = ep_.protocol_.fast_open();
  const std::optional<FastOpenCookie>& cookie = segment.syn_options.fast_open;
  bool acknowledged = segment.ack > iss_ + 1;
  bool lost = resends_ > 0 && !cookie && syn_data_ > 0 && !acknowledged;
  cache.learn(ep_.id().remote.address, cookie, mss_, lost);
  if (syn_data_ == 0) return;
  if (acknowledged) {
    ep_.syn_data_acknowledged_ = true;
    ++counters.TcpExtTCPFastOpenActive;
    cache.note_success();
    return;
  }
  ep_.fast_open_failure_ =
      resends_ > 0 ? FastOpenFailure::syn_retransmitted : FastOpenFailure::data_not_acknowledged;
  ++counters.TcpExtTCPFastOpenActiveFail;
}

/// Linux's tcp_fastopen_active_detect_blackhole: the third time-out, or the last.
void Handshake::note_fast_open_timeout(bool expired) {
  if (!active_ || !ep_.fast_open_) return;
  if (resends_ == 2 && !expired) ep_.protocol_.fast_open().note_black_hole();
  if (expired && resends_ < 2) ep_.protocol_.fast_open().note_black_hole();
}

void Handshake::open_early(Segment& syn) {
  fill_tcb(syn);
  syn.trim_front(1);
  if (syn.seq_length() > 0) {
    ep_.syn_data_acknowledged_ = true;
    ep_.awake_->tcb.rcv.on_segment(syn, ep_.protocol_.now());
    // The SYN-ACK is its acknowledgment.
    ep_.awake_->tcb.rcv.on_ack_sent(ep_.protocol_.now());
  }
  ack_num_ = ep_.awake_->tcb.rcv.rcv_nxt;
}

}  // namespace ustack::tcp
