// What the endpoint tells beside the stream (Linux's net/core/sock.c and skbuff.c, timestamping.rst,
// msg_zerocopy.rst).
#include <linux/net_tstamp.h>

#include <cstring>

#include "stack/tcp/endpoint.h"
#include "stack/tcp/tcp_info.h"

namespace ustack::tcp {

Reports* Endpoint::make_reports() {
  if (awake_->reports == nullptr)
    awake_->reports = protocol_.context().arena.create<Reports>(protocol_.context().arena);
  return awake_->reports;
}

/// sock_queue_err_skb: as much as the receive buffer has room for.
void Endpoint::report(Report&& report) {
  Reports* reports = make_reports();
  if (reports == nullptr || released_ ||
      reports->true_size() + awake_->tcb.rcv.buffer.true_size() >= awake_->tcb.rcv.limit)
    return;
  if (reports->push(std::move(report))) wake(ready::kErr);
}

void Endpoint::report_icmp(int error, const IcmpError& icmp) {
  // Linux's ipv6_icmp_error; IPv4's asks nobody.
  if (over_ipv6() && !receives_errors()) return;
  Report told = icmp_report(protocol_.context().blocks, error, icmp, id_.remote.port, icmp.quoted);
  if (told.payload.block) report(std::move(told));
}

/// Before the segment is judged: its text may then be somewhere else.
void Endpoint::note_arrival(const Segment& segment) {
  const SeqNum end = segment.seq + segment.payload_size();
  if (segment.payload_size() == 0 || end <= awake_->tcb.rcv.rcv_nxt) return;
  if (Reports* reports = make_reports()) reports->note_arrival(end, protocol_.now());
}

std::optional<Instant> Endpoint::arrived_at(size_t offset) const {
  return awake() && awake_->reports != nullptr
             ? awake_->reports->arrival_of(next_to_read() + static_cast<uint32_t>(offset))
             : std::nullopt;
}

/// __skb_complete_tx_timestamp.
void Endpoint::report_time(uint32_t kind, SeqNum last) {
  Report told;
  told.what.ee_errno = ENOMSG;
  told.what.ee_origin = SO_EE_ORIGIN_TIMESTAMPING;
  told.what.ee_info = kind;
  if ((awake_->options.times.flags & SOF_TIMESTAMPING_OPT_ID) != 0)
    told.what.ee_data = last - awake_->reports->first_key;
  told.at = protocol_.now();
  if ((awake_->options.times.flags & SOF_TIMESTAMPING_OPT_STATS) != 0) {
    told.payload.block = protocol_.context().blocks.allocate(kStatisticsBytes);
    if (!told.payload.block) return;
    told.payload.length = static_cast<uint32_t>(
        fill_statistics(*this, MutableBytes(told.payload.data(), kStatisticsBytes), protocol_.now()));
    told.statistics = true;
  }
  report(std::move(told));
}

/// Tells what has come true of the messages that are waited for.
void Endpoint::report_times() {
  for (Reports::Message& message : awake_->reports->messages()) {
    auto fulfil = [&](uint32_t wanted, uint32_t kind) {
      if ((message.awaited & wanted) == 0) return;
      message.awaited &= ~wanted;
      report_time(kind, message.last);
    };
    if (message.last < awake_->tcb.snd.snd_nxt) {
      // Handed to the link at once: there is no queueing discipline in between.
      fulfil(SOF_TIMESTAMPING_TX_SCHED, SCM_TSTAMP_SCHED);
      fulfil(SOF_TIMESTAMPING_TX_SOFTWARE, SCM_TSTAMP_SND);
    }
    if (message.last < awake_->tcb.snd.snd_una) fulfil(SOF_TIMESTAMPING_TX_ACK, SCM_TSTAMP_ACK);
  }
  awake_->reports->tidy();
}

/// MSG_ZEROCOPY: the program may use the bytes of its send again (__msg_zerocopy_callback). Unlike other
/// reports it is never left out, since the program waits for it.
void Endpoint::report_return(uint32_t number, bool copied) {
  if (released_) return;
  Report told;
  told.what.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
  told.what.ee_code = copied ? SO_EE_CODE_ZEROCOPY_COPIED : 0;
  told.what.ee_info = told.what.ee_data = number;
  if (awake_->reports->push(std::move(told))) wake(ready::kErr);
}

/// Of all sends whose bytes are acknowledged.
void Endpoint::report_returns() {
  while (std::optional<uint32_t> number = awake_->reports->take_returned(awake_->tcb.snd.snd_una))
    report_return(*number, awake_->tcb.snd.buffer.take_copied());
}

void Endpoint::sent_message(std::optional<uint32_t> stamps, Copying how) {
  if (!ensure_awake()) return;
  Change change(*this);
  Reports* reports = make_reports();
  if (reports == nullptr) return;
  const uint32_t awaited = stamps.value_or(awake_->options.times.flags) & time_stamping::kDepartures;
  if (awaited != 0 && is_synchronized(awake_->tcb.state)) {
    reports->await({awake_->tcb.snd.data_end() - 1, awaited});
    report_times();
  }
  if (how != Copying::not_asked && awake_->options.zero_copy) {
    const uint32_t number = reports->next_zero_copy++;
    if (how == Copying::lent && reports->await_return(awake_->tcb.snd.data_end(), number)) {
      report_returns();
      return;
    }
    // The buffer is free again at once.
    if (how == Copying::lent) settle_loans();
    report_return(number, true);
  }
}

/// sock_dequeue_err_skb.
std::optional<Report> Endpoint::take_report() {
  Change change(*this);
  if (!awake() || awake_->reports == nullptr) return std::nullopt;
  std::optional<Report> report = awake_->reports->pop();
  if (!report) return std::nullopt;
  const Report* next = awake_->reports->front();
  const bool next_is_icmp = next != nullptr && next->is_icmp();
  if (next_is_icmp) error_ = static_cast<int>(next->what.ee_errno);
  if (report->is_icmp() && !next_is_icmp) error_ = 0;
  if (next != nullptr) wake(ready::kErr);
  return report;
}

/// setsockopt(2), SO_TIMESTAMPING (sock_set_timestamping).
Status Endpoint::set_time_stamping(uint32_t flags, bool new_format) {
  constexpr uint32_t kKnown = (SOF_TIMESTAMPING_LAST << 1) - 1;
  if ((flags & ~(kKnown | time_stamping::kIdFromUnsent | time_stamping::kRxFilter)) != 0)
    return Error{EINVAL};
  if ((flags & time_stamping::kIdFromUnsent) != 0 && (flags & SOF_TIMESTAMPING_OPT_ID) == 0)
    return Error{EINVAL};
  // No clock of a card is there.
  if ((flags & SOF_TIMESTAMPING_BIND_PHC) != 0) return Error{EOPNOTSUPP};
  if ((flags & SOF_TIMESTAMPING_OPT_ID & ~awake_->options.times.flags) != 0) {
    if (awake_->tcb.state == State::closed || awake_->tcb.state == State::listen) return Error{EINVAL};
    Reports* reports = make_reports();
    if (reports == nullptr) return Error{ENOMEM};
    reports->first_key =
        (flags & time_stamping::kIdFromUnsent) != 0 ? awake_->tcb.snd.data_end() : awake_->tcb.snd.snd_una;
  }
  if ((flags & SOF_TIMESTAMPING_OPT_STATS) != 0 && (flags & SOF_TIMESTAMPING_OPT_TSONLY) == 0)
    return Error{EINVAL};
  awake_->options.times.flags = flags;
  awake_->options.times.new_format = new_format;
  update_telling();
  return {};
}

void Endpoint::update_telling() {
  tells_of_sends =
      (awake_->options.times.flags & time_stamping::kDepartures) != 0 || awake_->options.zero_copy;
}

}  // namespace ustack::tcp
