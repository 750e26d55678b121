// Armed rules on one direction of a running connection: what a malicious or unlucky network does to exactly
// the segments that matter. Each rule fires on the next `count` segments that match, in the order in which
// the rules were armed; a segment is taken by one rule at most.
//
//   Tamper up(*pair.cable.forward, pair.net);
//   up.drop(2, &Passing::is_fin);                          // the first two FINs
//   up.drop(1, [](const Passing& p) { return p.retransmission; });
//   up.hold(1, &Passing::is_pure_ack, 300ms);
//   up.replay(1, &Passing::has_data, 5s);                  // goes through, and comes once more later
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "tests/support/packet_view.h"
#include "tests/support/simulator.h"

namespace ustack::test {

/// A TCP segment on its way, and what the wire knows about its past.
struct Passing : TcpView {
  /// It has sequence numbers that have passed before.
  bool retransmission = false;
  /// How often its first sequence number has passed before.
  int times_before = 0;

  bool is_fin() const { return fin(); }
  bool is_syn() const { return syn(); }
  bool is_pure_ack() const { return pure_ack(); }
  bool has_data() const { return payload > 0; }
  bool is_retransmission() const { return retransmission; }
};

class Tamper {
 public:
  using Match = std::function<bool(const Passing&)>;
  static constexpr int kAlways = -1;

  Tamper(Emulator& wire, Simulator& net) : wire_(wire), net_(net) {
    wire.add_rule([this](WireFrame& frame) { return look(frame); });
  }
  Tamper(const Tamper&) = delete;
  Tamper& operator=(const Tamper&) = delete;
  ~Tamper() { wire_.clear_rules(); }

  /// They never arrive.
  void drop(int count, Match match) { arm(count, std::move(match), Action::drop); }
  /// They arrive `by` later, and others overtake them.
  void hold(int count, Match match, Duration by) { arm(count, std::move(match), Action::hold, by); }
  /// A spike: all that match until `end` arrive then, in order.
  void hold_until(Instant end, Match match) {
    arm(
        kAlways,
        [this, end, match = std::move(match)](const Passing& p) { return net_.now() < end && match(p); },
        Action::hold_until);
    rules_.back().end = end;
  }
  /// A bit is turned over where only TCP's checksum sees it.
  void corrupt(int count, Match match) { arm(count, std::move(match), Action::corrupt); }
  /// They arrive, and once more `after` that.
  void replay(int count, Match match, Duration after) { arm(count, std::move(match), Action::replay, after); }
  /// `change` may do anything to the frame's bytes; the checksum is not put right.
  void change(int count, Match match, std::function<void(WireFrame&, const Passing&)> change) {
    arm(count, std::move(match), Action::change);
    rules_.back().change = std::move(change);
  }
  void disarm() { rules_.clear(); }

  /// How many segments were tampered with.
  int fired() const { return fired_; }
  /// No rule is waiting for its segment any more.
  bool spent() const {
    for (const Armed& rule : rules_)
      if (rule.left > 0) return false;
    return true;
  }

 private:
  enum class Action { drop, hold, hold_until, corrupt, replay, change };
  struct Armed {
    int left;
    Match match;
    Action action;
    Duration time{};
    Instant end{};
    std::function<void(WireFrame&, const Passing&)> change{};
  };
  /// One direction of one connection.
  struct Stream {
    std::map<uint32_t, int> passed;
    uint32_t end = 0;
    bool begun = false;
  };

  void arm(int count, Match match, Action action, Duration time = {}) {
    rules_.push_back({count, std::move(match), action, time, {}, {}});
  }

  Passing passing(const TcpView& view) {
    Passing segment{view};
    uint32_t length = static_cast<uint32_t>(view.payload) + (view.syn() ? 1U : 0U) + (view.fin() ? 1U : 0U);
    if (length == 0) return segment;
    Stream& stream = streams_[static_cast<uint32_t>(view.source_port) << 16 | view.destination_port];
    segment.times_before = stream.passed[view.seq]++;
    segment.retransmission = stream.begun && static_cast<int32_t>(view.seq - stream.end) < 0;
    uint32_t end = view.seq + length;
    if (!stream.begun || static_cast<int32_t>(end - stream.end) > 0) stream.end = end;
    stream.begun = true;
    return segment;
  }

  Verdict look(WireFrame& frame) {
    if (bypass_) return Verdict::pass;
    auto view = TcpView::parse(frame);
    if (!view) return Verdict::pass;
    Passing segment = passing(*view);
    for (Armed& rule : rules_) {
      if (rule.left == 0 || !rule.match(segment)) continue;
      if (rule.left > 0) --rule.left;
      ++fired_;
      return apply(rule, frame, segment);
    }
    return Verdict::pass;
  }

  Verdict apply(const Armed& rule, WireFrame& frame, const Passing& segment) {
    switch (rule.action) {
      case Action::drop:
        return Verdict::drop;
      case Action::hold:
        send_later(frame, rule.time);
        return Verdict::drop;
      case Action::hold_until:
        send_later(frame, rule.end - net_.now());
        return Verdict::drop;
      case Action::replay:
        send_later(frame, rule.time);
        return Verdict::pass;
      case Action::corrupt:
        // In the payload, or in the window.
        frame.bytes[segment.payload > 0 ? segment.payload_at : segment.tcp_at + 15] ^= std::byte{0x10};
        return Verdict::pass;
      case Action::change:
        rule.change(frame, segment);
        return Verdict::pass;
    }
    return Verdict::pass;
  }

  void send_later(const WireFrame& frame, Duration by) {
    net_.events().at(net_.now() + by, [this, frame]() mutable {
      bypass_ = true;
      wire_.input(std::move(frame));
      bypass_ = false;
    });
  }

  Emulator& wire_;
  Simulator& net_;
  std::vector<Armed> rules_;
  std::map<uint32_t, Stream> streams_;
  int fired_ = 0;
  bool bypass_ = false;
};

}  // namespace ustack::test
