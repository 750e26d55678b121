#include "tests/support/emulator.h"

#include <algorithm>
#include <stdexcept>

#include "stack/net/segmentation.h"

namespace ustack::test {

namespace {

constexpr uint32_t kEthernetHeader = 14;

/// Randomness of one stage: a stream of its own, so that switching one impairment on leaves the others' draws
/// as they were.
class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  bool hit(double probability) {
    return probability > 0 && std::uniform_real_distribution<double>(0, 1)(engine_) < probability;
  }
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : engine_() % limit; }

 private:
  std::mt19937_64 engine_;
};

/// Turns superframes and partial checksums into what a wire carries.
class SegmentStage final : public Stage {
 public:
  explicit SegmentStage(bool ethernet) : ip_offset_(ethernet ? kEthernetHeader : 0) {}
  void input(WireFrame frame) override {
    if (frame.offload.segmentation == Offload::Segmentation::none) {
      complete_checksum(frame.bytes, frame.offload);
      frame.offload = Offload();
      return pass(std::move(frame));
    }
    TcpSegmenter cut(frame.bytes, frame.offload, ip_offset_);
    while (!cut.done()) {
      WireFrame piece;
      piece.bytes.resize(cut.largest());
      piece.bytes.resize(cut.next(piece.bytes));
      pass(std::move(piece));
    }
  }

 private:
  uint32_t ip_offset_;
};

class RuleStage final : public Stage {
 public:
  explicit RuleStage(EmulatorCounters& counters) : counters_(counters) {}
  void input(WireFrame frame) override {
    for (Rule& rule : rules) {
      if (rule(frame) == Verdict::drop) {
        ++counters_.rule_drops;
        return;
      }
    }
    pass(std::move(frame));
  }
  std::vector<Rule> rules;

 private:
  EmulatorCounters& counters_;
};

class LossStage final : public Stage {
 public:
  LossStage(double probability, uint64_t seed, uint64_t& lost)
      : probability_(probability), dice_(seed), lost_(lost) {}
  void input(WireFrame frame) override {
    if (dice_.hit(probability_))
      ++lost_;
    else
      pass(std::move(frame));
  }

 private:
  double probability_;
  Dice dice_;
  uint64_t& lost_;
};

class CorruptStage final : public Stage {
 public:
  CorruptStage(const Impairments& impairments, uint64_t seed, uint64_t& corrupted)
      : probability_(impairments.corrupt),
        // A link's own checksum guards its header; what gets through damaged is the packet.
        from_(impairments.ethernet ? kEthernetHeader : 0),
        dice_(seed),
        corrupted_(corrupted) {}
  void input(WireFrame frame) override {
    if (frame.bytes.size() > from_ && dice_.hit(probability_)) {
      uint64_t bit = dice_.below((frame.bytes.size() - from_) * 8);
      frame.bytes[from_ + bit / 8] ^= std::byte{1} << (bit % 8);
      ++corrupted_;
    }
    pass(std::move(frame));
  }

 private:
  double probability_;
  size_t from_;
  Dice dice_;
  uint64_t& corrupted_;
};

class DuplicateStage final : public Stage {
 public:
  DuplicateStage(double probability, uint64_t seed, uint64_t& duplicated)
      : probability_(probability), dice_(seed), duplicated_(duplicated) {}
  void input(WireFrame frame) override {
    if (dice_.hit(probability_)) {
      ++duplicated_;
      pass(frame);
    }
    pass(std::move(frame));
  }

 private:
  double probability_;
  Dice dice_;
  uint64_t& duplicated_;
};

/// A transmitter of limited rate behind a tail-drop queue.
class RateStage final : public Stage {
 public:
  RateStage(EventQueue& events, const Impairments& impairments, uint64_t& drops)
      : events_(events), impairments_(impairments), drops_(drops) {}
  void input(WireFrame frame) override {
    if (impairments_.rate_bps == 0) return pass(std::move(frame));
    auto size = static_cast<uint32_t>(frame.bytes.size());
    if ((impairments_.queue_bytes != 0 && queued_bytes_ + size > impairments_.queue_bytes) ||
        (impairments_.queue_frames != 0 && queued_frames_ + 1 > impairments_.queue_frames)) {
      ++drops_;
      return;
    }
    queued_bytes_ += size;
    ++queued_frames_;
    busy_until_ =
        std::max(busy_until_, events_.now()) + Duration(size * 8 * 1'000'000'000ULL / impairments_.rate_bps);
    events_.at(busy_until_, [this, size, frame = std::move(frame)]() mutable {
      queued_bytes_ -= size;
      --queued_frames_;
      pass(std::move(frame));
    });
  }

 private:
  EventQueue& events_;
  Impairments impairments_;
  uint64_t& drops_;
  Instant busy_until_{};
  uint32_t queued_bytes_ = 0, queued_frames_ = 0;
};

/// Propagation: delay with jitter keeps the order; a reordered frame is held back further and overtaken.
class DelayStage final : public Stage {
 public:
  DelayStage(EventQueue& events, const Impairments& impairments, uint64_t seed, uint64_t& reordered)
      : events_(events), impairments_(impairments), dice_(seed), reordered_(reordered) {}
  void input(WireFrame frame) override {
    Instant arrival =
        events_.now() + impairments_.delay + Duration(dice_.below(impairments_.jitter.count() + 1));
    if (dice_.hit(impairments_.reorder)) {
      ++reordered_;
      arrival += impairments_.reorder_by;
    } else {
      arrival = last_ = std::max(arrival, last_);
    }
    if (arrival == events_.now()) return pass(std::move(frame));
    events_.at(arrival, [this, frame = std::move(frame)]() mutable { pass(std::move(frame)); });
  }

 private:
  EventQueue& events_;
  Impairments impairments_;
  Dice dice_;
  uint64_t& reordered_;
  Instant last_{};
};

}  // namespace

struct Emulator::State {
  EmulatorCounters counters;
  RuleStage* rules = nullptr;
  std::vector<std::unique_ptr<Stage>> stages;
};

Emulator::Emulator(EventQueue& events, const Impairments& impairments, uint64_t seed, Stage::Output output)
    : state_(std::make_unique<State>()) {
  EmulatorCounters& counters = state_->counters;
  auto& stages = state_->stages;
  if (impairments.needs_segmentation())
    stages.push_back(std::make_unique<SegmentStage>(impairments.ethernet));
  auto rules = std::make_unique<RuleStage>(counters);
  state_->rules = rules.get();
  stages.push_back(std::move(rules));
  stages.push_back(std::make_unique<LossStage>(impairments.loss, seed ^ 0x1055, counters.lost));
  stages.push_back(std::make_unique<CorruptStage>(impairments, seed ^ 0xc0de, counters.corrupted));
  stages.push_back(
      std::make_unique<DuplicateStage>(impairments.duplicate, seed ^ 0xd0b1e, counters.duplicated));
  stages.push_back(std::make_unique<RateStage>(events, impairments, counters.queue_drops));
  stages.push_back(std::make_unique<DelayStage>(events, impairments, seed ^ 0xde1a7, counters.reordered));
  for (size_t i = 0; i + 1 < stages.size(); ++i)
    stages[i]->set_output([next = stages[i + 1].get()](WireFrame frame) { next->input(std::move(frame)); });
  stages.back()->set_output([&counters, output = std::move(output)](WireFrame frame) {
    ++counters.out;
    output(std::move(frame));
  });
}

Emulator::~Emulator() = default;

void Emulator::input(WireFrame frame) {
  ++state_->counters.in;
  state_->stages.front()->input(std::move(frame));
}

void Emulator::add_rule(Rule rule) { state_->rules->rules.push_back(std::move(rule)); }
void Emulator::clear_rules() { state_->rules->rules.clear(); }
const EmulatorCounters& Emulator::counters() const { return state_->counters; }

namespace {

double parse_number(const std::string& name, const std::string& value, std::string& unit) {
  size_t used = 0;
  double number = 0;
  try {
    number = std::stod(value, &used);
  } catch (const std::exception&) {
    throw std::invalid_argument(name + ": '" + value + "' is not a number");
  }
  unit = value.substr(used);
  if (number < 0) throw std::invalid_argument(name + ": '" + value + "' is negative");
  return number;
}

double scaled(const std::string& name, const std::string& value,
              std::initializer_list<std::pair<const char*, double>> units) {
  std::string unit;
  double number = parse_number(name, value, unit);
  for (auto& [text, factor] : units)
    if (unit == text) return number * factor;
  throw std::invalid_argument(name + ": unknown unit '" + unit + "'");
}

double probability(const std::string& name, const std::string& value) {
  double p = scaled(name, value, {{"", 1}, {"%", 0.01}});
  if (p > 1) throw std::invalid_argument(name + ": '" + value + "' is more than 1");
  return p;
}

Duration duration(const std::string& name, const std::string& value) {
  return Duration(
      static_cast<int64_t>(scaled(name, value, {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}})));
}

uint32_t count(const std::string& name, const std::string& value) {
  return static_cast<uint32_t>(scaled(name, value, {{"", 1}, {"k", 1024}, {"m", 1024 * 1024}}));
}

}  // namespace

void set_impairment(Impairments& impairments, const std::string& name, const std::string& value) {
  if (name == "loss") return void(impairments.loss = probability(name, value));
  if (name == "duplicate") return void(impairments.duplicate = probability(name, value));
  if (name == "corrupt") return void(impairments.corrupt = probability(name, value));
  if (name == "reorder") return void(impairments.reorder = probability(name, value));
  if (name == "reorder-by") return void(impairments.reorder_by = duration(name, value));
  if (name == "delay") return void(impairments.delay = duration(name, value));
  if (name == "jitter") return void(impairments.jitter = duration(name, value));
  if (name == "rate")
    return void(impairments.rate_bps = static_cast<uint64_t>(
                    scaled(name, value, {{"", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}})));
  if (name == "queue-bytes") return void(impairments.queue_bytes = count(name, value));
  if (name == "queue-frames") return void(impairments.queue_frames = count(name, value));
  throw std::invalid_argument("unknown impairment '" + name + "'");
}

}  // namespace ustack::test
