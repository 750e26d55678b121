// Times of arrival, times that are waited for, and the error queue of one socket.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/intrusive_list.h"
#include "stack/base/seqnum.h"
#include "stack/census.h"
#include "stack/mem/arena.h"
#include "stack/socket/report.h"

namespace ustack::tcp {

/// Made when a socket first has something to tell; most never have. Lock: the host's.
class Reports {
 public:
  /// Arrivals and sent messages that are remembered: of more, neighbours become one, as Linux's do that are
  /// merged in a queue.
  static constexpr size_t kMost = 64;

  explicit Reports(Arena& arena) : arena_(arena) {}
  Reports(const Reports&) = delete;
  Reports& operator=(const Reports&) = delete;
  ~Reports();

  /// Bytes up to `end` came, unless they had come before.
  void note_arrival(SeqNum end, Instant at);
  /// When the byte came; nothing: before it was asked for.
  std::optional<Instant> arrival_of(SeqNum byte) const;
  /// All before `next` has been read.
  void forget_arrivals(SeqNum next);

  /// What is still to be told of a message whose last byte is `last`: SOF_TIMESTAMPING_TX_*.
  struct Message {
    SeqNum last;
    uint32_t awaited = 0;
  };
  /// The oldest is given up where there are too many.
  void await(const Message& message);
  /// Those that are waited for, oldest first. Those with nothing left to wait for go with tidy().
  std::span<Message> messages() { return {messages_.data(), message_count_}; }
  void tidy();

  /// A send whose bytes are lent (MSG_ZEROCOPY) until all before `end` is acknowledged. Ends are in order.
  /// False when memory is out.
  bool await_return(SeqNum end, uint32_t number);
  /// The number of the oldest of them, which is forgotten, if all before `acknowledged` has been.
  std::optional<uint32_t> take_returned(SeqNum acknowledged);
  /// The same whatever was acknowledged.
  std::optional<uint32_t> take_returned();

  /// False when memory is out: the report is lost. Completions of zero-copy in a row become one.
  bool push(Report&& report);
  std::optional<Report> pop();
  bool empty() const { return queue_.empty(); }
  /// The oldest; nullptr: none.
  const Report* front() { return queue_.front() != nullptr ? &queue_.front()->report : nullptr; }
  /// What waits, by true size in bytes.
  uint32_t true_size() const { return true_size_; }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    queue_.for_each([&](Entry& entry) { census.see(entry.report.payload); });
  }

  /// SOF_TIMESTAMPING_OPT_ID: messages are numbered by their last byte, from here.
  SeqNum first_key;
  /// MSG_ZEROCOPY: the number of the next send.
  uint32_t next_zero_copy = 0;

 private:
  struct Entry : ListHook<> {
    Report report;
  };
  struct Lent : ListHook<> {
    SeqNum end;
    uint32_t number = 0;
  };
  struct Arrival {
    SeqNum end;
    Instant at;
  };
  static uint32_t cost(const Report& report);

  Arena& arena_;
  IntrusiveList<Entry> queue_;
  IntrusiveList<Lent> lent_;
  uint32_t true_size_ = 0;
  uint32_t arrival_count_ = 0, message_count_ = 0;
  std::array<Arrival, kMost> arrivals_{};  // by `end`
  std::array<Message, kMost> messages_{};
};

}  // namespace ustack::tcp
