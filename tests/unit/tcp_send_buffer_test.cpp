#include "stack/tcp/send_buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "tests/support/heap_arena.h"
#include "tests/support/lender.h"
#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

constexpr uint32_t kPlenty = 1 << 30;

class TcpSendBuffer : public ::testing::Test {
 protected:
  /// Copies text into a reservation, as a program's thread would without the lock.
  static void copy(const Extents& room, std::string_view text) {
    ASSERT_LE(text.size(), room.bytes);
    for (uint32_t i = 0; i < room.count && !text.empty(); ++i) {
      size_t n = std::min(text.size(), room.runs[i].size());
      std::memcpy(room.runs[i].data(), text.data(), n);
      text.remove_prefix(n);
    }
  }
  void write(std::string_view text, uint32_t limit = kPlenty) {
    while (!text.empty()) {
      Extents room = buffer_.reserve(text.size(), limit);
      ASSERT_GT(room.bytes, 0u);
      size_t n = std::min(room.bytes, text.size());
      copy(room, text.substr(0, n));
      ASSERT_EQ(buffer_.commit(n), n);
      text.remove_prefix(n);
    }
  }
  static std::string payload(TxFrame& frame) {
    std::string out;
    for (const Slice& slice : frame.payload())
      out.append(reinterpret_cast<const char*>(slice.source()), slice.length);
    return out;
  }
  /// What one frame takes of [offset, offset + length).
  std::string read_frame(uint32_t offset, uint32_t length) {
    TxFrame* frame = frames_.allocate();
    uint32_t n = buffer_.slices(offset, length, *frame);
    std::string out = payload(*frame);
    EXPECT_EQ(out.size(), n);
    frames_.release(frame);
    return out;
  }
  std::string read(uint32_t offset, uint32_t length) {
    std::string out;
    while (out.size() < length) {
      auto done = static_cast<uint32_t>(out.size());
      std::string part = read_frame(offset + done, length - done);
      if (part.empty()) break;
      out += part;
    }
    return out;
  }
  static std::string numbered(size_t size, size_t from = 0) {
    std::string out(size, 0);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>((from + i) * 131 >> 3);
    return out;
  }

  test::HeapArena arena_;
  BlockPool blocks_{arena_};
  FramePool frames_{arena_};
  SendBuffer buffer_{blocks_};
};

TEST_F(TcpSendBuffer, HoldsWhatWasWritten) {
  EXPECT_TRUE(buffer_.empty());
  write("hello, ");
  write("world");
  EXPECT_EQ(buffer_.size(), 12u);
  EXPECT_EQ(read(0, 12), "hello, world");
  EXPECT_EQ(read(3, 5), "lo, w");
  EXPECT_EQ(read_frame(0, 0), "");
  buffer_.acknowledge(7);
  EXPECT_EQ(read(0, 5), "world");
  buffer_.acknowledge(5);
  EXPECT_TRUE(buffer_.empty());
  EXPECT_EQ(buffer_.true_size(), 0u) << "an idle connection holds no memory";
  EXPECT_EQ(blocks_.live(), 0u);
}

TEST_F(TcpSendBuffer, SmallWritesShareBlocks) {
  std::string all;
  uint32_t worst_percent = 0;
  for (int i = 0; i < 200000; ++i) {
    char c = static_cast<char>(i * 7);
    write(std::string_view(&c, 1));
    all += c;
    if (all.size() >= 1000)
      worst_percent =
          std::max(worst_percent, static_cast<uint32_t>(buffer_.true_size() * 100ull / all.size()));
  }
  EXPECT_LT(worst_percent, 400u)
      << "one block ahead at most, and it is no larger than what is queued, rounded up";
  EXPECT_LT(buffer_.true_size(), all.size() * 12 / 10) << "at length next to nothing is wasted";
  // A superframe of them fits into one frame.
  EXPECT_EQ(read_frame(0, 65000), all.substr(0, 65000));
  EXPECT_EQ(read_frame(77777, 65000), all.substr(77777, 65000));
  EXPECT_EQ(read(0, buffer_.size()), all);
}

class TcpLending : public TcpSendBuffer {
 protected:
  TcpLending() { blocks_.set_loan_reader(lender_); }
  size_t lend(const std::string& text, uint32_t limit = kPlenty, uint64_t who = test::TestLender::kProgram) {
    return buffer_.lend(test::bytes_of(text), limit, who);
  }
  test::TestLender lender_;
};

TEST_F(TcpLending, BytesStayWhereTheyAre) {
  std::string text = numbered(200000);
  EXPECT_EQ(lend(text), text.size());
  EXPECT_EQ(buffer_.size(), text.size());
  EXPECT_GE(buffer_.true_size(), text.size()) << "they count as others do";
  EXPECT_LT(buffer_.true_size(), text.size() * 11 / 10);
  TxFrame* frame = frames_.allocate();
  EXPECT_EQ(buffer_.slices(1000, 60000, *frame), 60000u);
  EXPECT_EQ(reinterpret_cast<const char*>(frame->payload()[0].source()), text.data() + 1000);
  EXPECT_EQ(payload(*frame), text.substr(1000, 60000));
  text.replace(1000, 5, "there");
  EXPECT_EQ(payload(*frame).substr(0, 5), "there") << "not a copy";
  EXPECT_EQ(lender_.fetched, 0u);
  EXPECT_EQ(read(0, 200000), text);
  frames_.release(frame);
  buffer_.acknowledge(200000);
  EXPECT_EQ(blocks_.live(), 0u);
  EXPECT_FALSE(buffer_.take_copied());
}

TEST_F(TcpLending, WhatIsSettledIsACopy) {
  std::string text = numbered(150000);
  const std::string before = text;
  ASSERT_EQ(lend(text), text.size());
  TxFrame* frame = frames_.allocate();
  EXPECT_EQ(buffer_.slices(0, 60000, *frame), 60000u);
  buffer_.settle();
  text.assign(text.size(), '?');
  EXPECT_EQ(payload(*frame), before.substr(0, 60000)) << "of frames on their way too";
  EXPECT_EQ(read(0, 150000), before);
  EXPECT_TRUE(buffer_.take_copied());
  EXPECT_FALSE(buffer_.take_copied());
  frames_.release(frame);
}

TEST_F(TcpLending, OnlyAsMuchAsTheLimitAllows) {
  const std::string text = numbered(500000), more = text.substr(0, 100);
  const size_t first = lend(text, 100000);
  EXPECT_GT(first, 80000u);
  EXPECT_LE(buffer_.true_size(), 100000u + 4096);
  EXPECT_EQ(lend(text, buffer_.true_size()), 0u) << "full";
  EXPECT_GT(lend(more, buffer_.true_size() + 1), 0u) << "a byte of room is room";
  EXPECT_EQ(read(0, buffer_.size()), text.substr(0, first) + more);
}

TEST_F(TcpLending, CopiesAndLoansInARow) {
  const std::string a = numbered(20000), b = numbered(30, 7), c = numbered(9000, 9);
  write("copied ");
  ASSERT_EQ(lend(a), a.size());
  write(b);  // not behind a in its block
  ASSERT_EQ(lend(c), c.size());
  write("end");
  EXPECT_EQ(read(0, buffer_.size()), "copied " + a + b + c + "end");
  buffer_.settle();
  write("!");
  EXPECT_EQ(read(0, buffer_.size()), "copied " + a + b + c + "end!");
}

TEST_F(TcpLending, WhoHasNotLentThemCopies) {
  const std::string text = numbered(100000);
  ASSERT_EQ(lend(text, kPlenty, test::TestLender::kOther), text.size());
  EXPECT_EQ(read(0, 10), text.substr(0, 10));
  EXPECT_EQ(lender_.fetched, 1u) << "a block at a time, when it is needed";
  EXPECT_EQ(read(0, 100000), text);
  EXPECT_EQ(lender_.fetched, 2u);
  EXPECT_TRUE(buffer_.take_copied());
  EXPECT_FALSE(buffer_.lost());
}

TEST_F(TcpLending, WhatCantBeHadNowIsNotSentAndNotLost) {
  const std::string text = numbered(10000);
  write("first");
  ASSERT_EQ(lend(text, kPlenty, test::TestLender::kOther), text.size());
  lender_.other = Settlement::later;
  EXPECT_EQ(read(0, 10005), "first");
  EXPECT_FALSE(buffer_.lost());
  buffer_.settle();
  lender_.other = Settlement::done;
  EXPECT_EQ(read(0, 10005), "first" + text);
}

TEST_F(TcpLending, WhatIsGoneIsLostWhenItIsNeeded) {
  const std::string text = numbered(10000);
  ASSERT_EQ(lend(text, kPlenty, test::TestLender::kOther), text.size());
  lender_.other = Settlement::gone;
  buffer_.settle();
  EXPECT_FALSE(buffer_.lost()) << "it may have arrived";
  EXPECT_EQ(read(0, 100), "");
  EXPECT_TRUE(buffer_.lost());
  lender_.other = Settlement::done;
  EXPECT_EQ(read(0, 100), "") << "whatever is in its place now";
  buffer_.clear();
  EXPECT_FALSE(buffer_.lost());
}

TEST_F(TcpLending, AFrameIsSettledAsAWhole) {
  const std::string a = numbered(9000), b = numbered(9000, 5);
  ASSERT_EQ(lend(a), a.size());
  ASSERT_EQ(lend(b, kPlenty, test::TestLender::kOther), b.size());
  TxFrame* frame = frames_.allocate();
  ASSERT_EQ(buffer_.slices(0, 10000, *frame), 10000u);
  EXPECT_TRUE(frame->settle());
  EXPECT_FALSE(frame->payload()[0].block->lent());
  EXPECT_FALSE(frame->payload()[1].block->lent());
  EXPECT_EQ(payload(*frame), a + b.substr(0, 1000));
  frames_.release(frame);
  buffer_.acknowledge(buffer_.size());
  ASSERT_EQ(lend(a), a.size());
  ASSERT_EQ(lend(b, kPlenty, test::TestLender::kOther), b.size());
  frame = frames_.allocate();
  ASSERT_EQ(buffer_.slices(8000, 2000, *frame), 2000u);
  EXPECT_TRUE(frame->settle()) << "slices() has fetched it";
  frames_.release(frame);
}

TEST_F(TcpLending, WithoutMemoryAsMuchAsThereWas) {
  const std::string text = numbered(300000);
  arena_.fail_after(2);
  const size_t lent = lend(text);
  arena_.never_fail();
  EXPECT_GT(lent, 0u);
  EXPECT_LT(lent, text.size());
  EXPECT_EQ(read(0, buffer_.size()), text.substr(0, lent));
}

TEST_F(TcpSendBuffer, ALoneSmallWriteTakesASmallBlock) {
  write("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(buffer_.true_size(), BlockPool::kSizes[0] + sizeof(Block));
}

TEST_F(TcpSendBuffer, BulkGoesIntoFewSlices) {
  std::string data = numbered(300000);
  Extents room = buffer_.reserve(data.size(), kPlenty);
  EXPECT_EQ(room.count, Extents::kMax);
  EXPECT_LT(room.bytes, data.size());
  EXPECT_GT(room.bytes, 250000u);
  copy(room, std::string_view(data).substr(0, room.bytes));
  EXPECT_EQ(buffer_.commit(room.bytes), room.bytes);
  EXPECT_EQ(read_frame(10000, 65000), data.substr(10000, 65000));
}

TEST_F(TcpSendBuffer, AFrameTakesAsManySlicesAsItHas) {
  std::string all = numbered(4000);
  for (size_t i = 0; i < all.size(); i += 100) write(std::string_view(all).substr(i, 100));
  TxFrame* frame = frames_.allocate();
  while (frame->payload().size() < TxFrame::kMaxSlices - 1) buffer_.slices(0, 1, *frame);
  uint32_t n = buffer_.slices(0, 4000, *frame);
  EXPECT_GT(n, 0u);
  EXPECT_LT(n, 4000u);
  EXPECT_EQ(buffer_.slices(n, 4000 - n, *frame), 0u) << "no slice left";
  EXPECT_EQ(payload(*frame).substr(TxFrame::kMaxSlices - 1), all.substr(0, n));
  frames_.release(frame);
}

TEST_F(TcpSendBuffer, SlicesOutliveTheBuffer) {
  TxFrame* frame = frames_.allocate();
  {
    SendBuffer buffer(blocks_);
    Extents room = buffer.reserve(5, kPlenty);
    copy(room, "later");
    buffer.commit(5);
    buffer.slices(0, 5, *frame);
    buffer.acknowledge(5);
  }
  EXPECT_EQ(payload(*frame), "later");
  EXPECT_EQ(blocks_.live(), 1u);
  frames_.release(frame);
  EXPECT_EQ(blocks_.live(), 0u);
}

TEST_F(TcpSendBuffer, WritingBehindBytesInFlightLeavesThemAlone) {
  write("first");
  TxFrame* frame = frames_.allocate();
  buffer_.slices(0, 5, *frame);
  write("second");
  EXPECT_EQ(buffer_.true_size(), BlockPool::kSizes[0] + sizeof(Block)) << "the same block";
  EXPECT_EQ(payload(*frame), "first");
  EXPECT_EQ(read(0, 11), "firstsecond");
  frames_.release(frame);
}

TEST_F(TcpSendBuffer, OneReservationAtATime) {
  Extents room = buffer_.reserve(10, kPlenty);
  EXPECT_EQ(room.bytes, 10u);
  EXPECT_TRUE(buffer_.reserved());
  EXPECT_EQ(buffer_.reserve(10, kPlenty).bytes, 0u);
  EXPECT_EQ(buffer_.commit(0), 0u);
  EXPECT_FALSE(buffer_.reserved());
  EXPECT_EQ(buffer_.true_size(), 0u) << "unused room is given back";
  EXPECT_EQ(buffer_.commit(0), 0u);
  EXPECT_EQ(buffer_.reserve(0, kPlenty).bytes, 0u);
  EXPECT_FALSE(buffer_.reserved());
}

TEST_F(TcpSendBuffer, PartOfAReservationMayBeUsed) {
  std::string data = numbered(100000);
  Extents room = buffer_.reserve(data.size(), kPlenty);
  ASSERT_EQ(room.bytes, data.size());
  copy(room, std::string_view(data).substr(0, 20000));
  EXPECT_EQ(buffer_.commit(20000), 20000u);
  EXPECT_EQ(buffer_.size(), 20000u);
  EXPECT_LE(blocks_.live(), 2u);
  write(std::string_view(data).substr(20000));
  EXPECT_EQ(read(0, 100000), data);
}

TEST_F(TcpSendBuffer, AReservationSurvivesClearAndItsBytesAreLost) {
  write("queued");
  Extents room = buffer_.reserve(70000, kPlenty);
  ASSERT_EQ(room.bytes, 70000u);
  ASSERT_GT(room.count, 1u) << "in the tail block and in new ones";
  buffer_.clear();
  EXPECT_TRUE(buffer_.empty());
  // A sanitizer watches this.
  copy(room, numbered(70000));
  EXPECT_EQ(buffer_.commit(70000), 0u);
  EXPECT_TRUE(buffer_.empty());
  EXPECT_EQ(buffer_.true_size(), 0u);
  EXPECT_EQ(blocks_.live(), 0u);
  write("again");
  EXPECT_EQ(read(0, 5), "again");
}

TEST_F(TcpSendBuffer, AReservationSurvivesTheAcknowledgementOfItsBlock) {
  for (size_t used : {size_t{0}, size_t{6}}) {
    write("queued");
    Extents room = buffer_.reserve(6, kPlenty);
    ASSERT_EQ(room.count, 1u);
    buffer_.acknowledge(6);
    copy(room, "second");
    EXPECT_EQ(buffer_.commit(used), used);
    EXPECT_EQ(buffer_.size(), used);
    EXPECT_EQ(read(0, buffer_.size()), std::string_view("second").substr(0, used));
    buffer_.acknowledge(static_cast<uint32_t>(used));
    EXPECT_EQ(blocks_.live(), 0u);
  }
}

TEST_F(TcpSendBuffer, TheLimitIsOfTrueSize) {
  constexpr uint32_t kLimit = 50000;
  uint32_t written = 0;
  for (;;) {
    Extents room = buffer_.reserve(1000, kLimit);
    if (room.bytes == 0) break;
    written += buffer_.commit(room.bytes);
    ASSERT_LE(buffer_.true_size(), kLimit + BlockPool::kSizes[0] + sizeof(Block));
  }
  EXPECT_GT(written, kLimit * 3 / 4);
  EXPECT_FALSE(buffer_.writable(kLimit));
  EXPECT_FALSE(buffer_.reserved());
  buffer_.acknowledge(written);
  EXPECT_TRUE(buffer_.writable(kLimit));
  EXPECT_GT(buffer_.reserve(1000, kLimit).bytes, 0u);
  buffer_.commit(0);
}

TEST_F(TcpSendBuffer, WhatIsWritableHasRoom) {
  test::SeededRandom random(4);
  for (uint32_t limit : {4608u, 16384u, 87040u}) {
    buffer_.clear();
    for (int i = 0; i < 2000; ++i) {
      Extents room = buffer_.reserve(1 + random.below(3000), limit);
      if (buffer_.writable(limit)) {
        EXPECT_GT(room.bytes, 0u);
      }
      buffer_.commit(room.bytes);
      if (random.chance(0.3)) buffer_.acknowledge(static_cast<uint32_t>(random.below(buffer_.size() + 1)));
    }
  }
}

TEST_F(TcpSendBuffer, NoMemoryIsNoRoom) {
  arena_.fail_after(0);
  EXPECT_EQ(buffer_.reserve(100, kPlenty).bytes, 0u);
  EXPECT_FALSE(buffer_.reserved());
  arena_.fail_after(2);
  Extents room = buffer_.reserve(100000, kPlenty);
  EXPECT_EQ(room.count, 2u) << "what there was";
  buffer_.commit(0);
  arena_.never_fail();
}

TEST_F(TcpSendBuffer, AgreesWithAModel) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    test::SeededRandom random(seed);
    SendBuffer buffer(blocks_);
    std::string model;  // what is queued
    size_t position = 0;
    uint32_t next = 0;  // SND.NXT - SND.UNA
    uint32_t limit = static_cast<uint32_t>(5000 + random.below(400000));
    for (int step = 0; step < 1500; ++step) {
      switch (random.below(5)) {
        case 0:
        case 1: {
          size_t want = 1 + random.below(random.chance(0.5) ? 50 : 70000);
          Extents room = buffer.reserve(want, limit);
          ASSERT_LE(room.bytes, want);
          size_t used = random.chance(0.7) ? room.bytes : random.below(room.bytes + 1);
          std::string text = numbered(used, position);
          copy(room, text);
          if (random.chance(0.2) && !model.empty()) {
            // An ACK comes in while the program copies.
            auto n = static_cast<uint32_t>(1 + random.below(model.size()));
            buffer.acknowledge(n);
            model.erase(0, n);
            next = next > n ? next - n : 0;
          }
          bool cleared = random.chance(0.02);
          if (cleared) {
            buffer.clear();
            model.clear();
            next = 0;
          }
          ASSERT_EQ(buffer.commit(used), cleared ? 0 : used);
          if (!cleared) {
            model += text;
            position += used;
          }
          break;
        }
        case 2: {  // send something new
          auto n = static_cast<uint32_t>(std::min<uint64_t>(1 + random.below(65000), model.size() - next));
          TxFrame* frame = frames_.allocate();
          uint32_t done = buffer.slices(next, n, *frame);
          ASSERT_EQ(payload(*frame), model.substr(next, done));
          ASSERT_TRUE(done == n || frame->payload().size() == TxFrame::kMaxSlices);
          frames_.release(frame);
          next += done;
          break;
        }
        case 3: {  // send something again, anywhere
          if (model.empty()) break;
          auto from = static_cast<uint32_t>(random.chance(0.5) ? 0 : random.below(model.size()));
          auto n = static_cast<uint32_t>(std::min<uint64_t>(1 + random.below(3000), model.size() - from));
          TxFrame* frame = frames_.allocate();
          uint32_t done = buffer.slices(from, n, *frame);
          ASSERT_EQ(payload(*frame), model.substr(from, done));
          frames_.release(frame);
          break;
        }
        default: {
          auto n = static_cast<uint32_t>(random.below(next + 1));
          buffer.acknowledge(n);
          model.erase(0, n);
          next -= n;
          break;
        }
      }
      ASSERT_EQ(buffer.size(), model.size());
      ASSERT_GE(buffer.true_size(), buffer.size());
    }
  }
  EXPECT_EQ(blocks_.live(), 0u);
}

}  // namespace
}  // namespace ustack::tcp
