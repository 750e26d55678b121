#include "stack/tcp/reports.h"

#include <algorithm>
#include <utility>

namespace ustack::tcp {

Reports::~Reports() {
  while (Entry* entry = queue_.pop_front()) arena_.destroy(entry);
  while (Lent* lent = lent_.pop_front()) arena_.destroy(lent);
}

void Reports::note_arrival(SeqNum end, Instant at) {
  auto first = arrivals_.begin(), last = first + arrival_count_;
  auto place = std::find_if(first, last, [end](const Arrival& each) { return end <= each.end; });
  if (place != last && place->end == end) return;
  if (arrival_count_ == kMost) {
    // Taken for a part of its neighbour.
    if (place == last) *(last - 1) = Arrival{end, at};
    return;
  }
  std::move_backward(place, last, last + 1);
  *place = Arrival{end, at};
  ++arrival_count_;
}

std::optional<Instant> Reports::arrival_of(SeqNum byte) const {
  for (uint32_t i = 0; i < arrival_count_; ++i)
    if (byte < arrivals_[i].end) return arrivals_[i].at;
  return std::nullopt;
}

void Reports::forget_arrivals(SeqNum next) {
  uint32_t gone = 0;
  while (gone < arrival_count_ && arrivals_[gone].end <= next) ++gone;
  std::move(arrivals_.begin() + gone, arrivals_.begin() + arrival_count_, arrivals_.begin());
  arrival_count_ -= gone;
}

void Reports::await(const Message& message) {
  if (message_count_ == kMost) {
    std::move(messages_.begin() + 1, messages_.end(), messages_.begin());
    --message_count_;
  }
  messages_[message_count_++] = message;
}

void Reports::tidy() {
  auto end = std::remove_if(messages_.begin(), messages_.begin() + message_count_,
                            [](const Message& each) { return each.awaited == 0; });
  message_count_ = static_cast<uint32_t>(end - messages_.begin());
}

bool Reports::await_return(SeqNum end, uint32_t number) {
  auto* lent = arena_.create<Lent>();
  if (lent == nullptr) return false;
  lent->end = end;
  lent->number = number;
  lent_.push_back(*lent);
  return true;
}

std::optional<uint32_t> Reports::take_returned(SeqNum acknowledged) {
  Lent* lent = lent_.front();
  return lent != nullptr && lent->end <= acknowledged ? take_returned() : std::nullopt;
}

std::optional<uint32_t> Reports::take_returned() {
  Lent* lent = lent_.pop_front();
  if (lent == nullptr) return std::nullopt;
  const uint32_t number = lent->number;
  arena_.destroy(lent);
  return number;
}

uint32_t Reports::cost(const Report& report) {
  return static_cast<uint32_t>(sizeof(Entry)) +
         (report.payload.block ? report.payload.block->true_size() : 0);
}

bool Reports::push(Report&& report) {
  if (Entry* last = queue_.back(); last != nullptr && report.what.ee_origin == SO_EE_ORIGIN_ZEROCOPY) {
    sock_extended_err& before = last->report.what;
    if (before.ee_origin == SO_EE_ORIGIN_ZEROCOPY && before.ee_code == report.what.ee_code &&
        before.ee_data + 1 == report.what.ee_info) {
      before.ee_data = report.what.ee_data;
      return true;
    }
  }
  Entry* entry = arena_.create<Entry>();
  if (entry == nullptr) return false;
  entry->report = std::move(report);
  true_size_ += cost(entry->report);
  queue_.push_back(*entry);
  return true;
}

std::optional<Report> Reports::pop() {
  Entry* entry = queue_.pop_front();
  if (entry == nullptr) return std::nullopt;
  true_size_ -= cost(entry->report);
  std::optional<Report> report(std::move(entry->report));
  arena_.destroy(entry);
  return report;
}

}  // namespace ustack::tcp
