#include "stack/tcp/receive_buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

class TcpReceiveBuffer : public ::testing::Test {
 protected:
  /// A frame's payload as it comes from a link that reads into blocks of `block_size`.
  Slice frame(std::string_view text, uint32_t block_size) {
    uint32_t headers = block_size >= text.size() + 54 ? 54 : 0;
    BlockRef block = blocks_.allocate(std::max<uint32_t>(block_size, static_cast<uint32_t>(text.size())));
    std::memcpy(block->data() + headers, text.data(), text.size());
    return Slice{std::move(block), headers, static_cast<uint32_t>(text.size())};
  }
  static std::string text(const Extents& extents) {
    std::string out;
    for (uint32_t i = 0; i < extents.count; ++i)
      out.append(reinterpret_cast<const char*>(extents.runs[i].data()), extents.runs[i].size());
    return out;
  }
  static std::string numbered(size_t size, size_t from = 0) {
    std::string out(size, 0);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>((from + i) * 131 >> 3);
    return out;
  }
  std::string read(size_t want) {
    std::string out;
    while (out.size() < want) {
      Extents view = buffer_.view(want - out.size(), 0);
      if (view.bytes == 0) break;
      out += text(view);
      EXPECT_EQ(buffer_.consume(view.bytes), view.bytes);
    }
    return out;
  }

  static constexpr uint32_t kSmall = BlockPool::kSizes[2], kHuge = BlockPool::kLargest;
  test::HeapArena arena_;
  BlockPool blocks_{arena_};
  PiecePool pieces_{arena_, blocks_};
  ReceiveBuffer buffer_{pieces_};
};

TEST_F(TcpReceiveBuffer, GivesBackWhatCame) {
  EXPECT_EQ(buffer_.view(10, 0).bytes, 0u);
  EXPECT_FALSE(buffer_.viewed());
  ASSERT_TRUE(buffer_.append(frame("hello, ", kSmall)));
  ASSERT_TRUE(buffer_.append(frame("world", kHuge)));
  EXPECT_EQ(buffer_.size(), 12u);
  EXPECT_EQ(read(5), "hello");
  EXPECT_EQ(read(100), ", world");
  EXPECT_TRUE(buffer_.empty());
  EXPECT_EQ(buffer_.true_size(), 0u);
  EXPECT_EQ(blocks_.live(), 0u);
  EXPECT_EQ(pieces_.live(), 0u);
}

TEST_F(TcpReceiveBuffer, PeeksAtAnOffset) {
  std::string data = numbered(5000);
  for (size_t i = 0; i < data.size(); i += 1000)
    ASSERT_TRUE(buffer_.append(frame(data.substr(i, 1000), kSmall)));
  for (size_t offset : {0u, 1u, 999u, 1000u, 2500u, 4999u}) {
    Extents view = buffer_.view(1500, offset);
    EXPECT_EQ(text(view), data.substr(offset, 1500));
    EXPECT_EQ(buffer_.consume(0), 0u);
  }
  EXPECT_EQ(buffer_.view(10, 5000).bytes, 0u);
  EXPECT_FALSE(buffer_.viewed());
  EXPECT_EQ(buffer_.size(), 5000u);
}

TEST_F(TcpReceiveBuffer, OneViewAtATime) {
  ASSERT_TRUE(buffer_.append(frame("abc", kSmall)));
  EXPECT_EQ(buffer_.view(2, 0).bytes, 2u);
  EXPECT_TRUE(buffer_.viewed());
  EXPECT_EQ(buffer_.view(2, 0).bytes, 0u);
  EXPECT_EQ(buffer_.consume(2), 2u);
  EXPECT_FALSE(buffer_.viewed());
  EXPECT_EQ(read(10), "c");
}

TEST_F(TcpReceiveBuffer, AFullFrameIsNotCopied) {
  Slice superframe = frame(numbered(60000), kHuge);
  const std::byte* where = superframe.data();
  ASSERT_TRUE(buffer_.append(std::move(superframe)));
  Slice segment = frame(numbered(1448), kSmall);
  const std::byte* where_segment = segment.data();
  ASSERT_TRUE(buffer_.append(std::move(segment)));
  Extents view = buffer_.view(100000, 0);
  ASSERT_EQ(view.count, 2u);
  EXPECT_EQ(view.runs[0].data(), where);
  EXPECT_EQ(view.runs[1].data(), where_segment);
  buffer_.consume(0);
  EXPECT_GE(buffer_.true_size(), BlockPool::kLargest + kSmall);
}

TEST_F(TcpReceiveBuffer, SmallFramesAreCompacted) {
  // One byte in each 68 KB block: kept as they are, 1000 of them would take 68 MB.
  std::string data = numbered(1000);
  for (char c : data) ASSERT_TRUE(buffer_.append(frame(std::string_view(&c, 1), kHuge)));
  EXPECT_EQ(buffer_.size(), 1000u);
  EXPECT_LT(buffer_.true_size(), 5000u);
  EXPECT_EQ(blocks_.live_bytes() + pieces_.live() * sizeof(Piece), buffer_.true_size());
  EXPECT_EQ(read(1000), data);
}

TEST_F(TcpReceiveBuffer, ManySmallFramesAreFewRuns) {
  std::string data = numbered(200000);
  for (size_t i = 0; i < data.size(); i += 100)
    ASSERT_TRUE(buffer_.append(frame(data.substr(i, 100), kSmall)));
  Extents view = buffer_.view(data.size(), 0);
  EXPECT_EQ(text(view), data.substr(0, view.bytes));
  EXPECT_GT(view.bytes, 6 * BlockPool::kSizes[4]) << "all runs but the first two are of the largest blocks";
  buffer_.consume(view.bytes);
}

TEST_F(TcpReceiveBuffer, AWindowsWorthOfMemoryIsWhatItSays) {
  test::SeededRandom random(5);
  // Whatever the sizes of frames and blocks: beyond one block at the end, at most about half of it is air.
  for (uint32_t size :
       {1u, 64u, 232u, 300u, 536u, 1000u, 1100u, 1448u, 2500u, 5000u, 9000u, 20000u, 33000u, 36000u}) {
    std::string data;
    while (data.size() < 300000) {
      std::string part = numbered(size, data.size());
      ASSERT_TRUE(buffer_.append(frame(part, random.chance(0.5) ? kHuge : kSmall)));
      data += part;
      EXPECT_LE(buffer_.true_size(), data.size() * 24 / 10 + 300)
          << "frames of " << size << " at " << data.size();
      if (HasFailure()) return;
    }
    EXPECT_EQ(read(data.size()), data);
  }
}

TEST_F(TcpReceiveBuffer, CompactingDoesNotMoveWhatIsViewed) {
  ASSERT_TRUE(buffer_.append(frame("abc", kHuge)));
  Extents view = buffer_.view(3, 0);
  const std::byte* where = view.runs[0].data();
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(buffer_.append(frame("defg", kHuge)));
  EXPECT_EQ(text(view), "abc");
  EXPECT_EQ(buffer_.consume(0), 0u);
  EXPECT_EQ(buffer_.view(1, 0).runs[0].data(), where);
  buffer_.consume(0);
}

TEST_F(TcpReceiveBuffer, AViewSurvivesClear) {
  std::string data = numbered(3000);
  ASSERT_TRUE(buffer_.append(frame(data.substr(0, 1500), kSmall)));
  ASSERT_TRUE(buffer_.append(frame(data.substr(1500), kHuge)));
  Extents view = buffer_.view(3000, 0);
  buffer_.clear();
  EXPECT_TRUE(buffer_.empty());
  EXPECT_EQ(buffer_.true_size(), 0u);
  EXPECT_EQ(text(view), data) << "a sanitizer watches this";
  // What comes after the clear is not what the view was about.
  ASSERT_TRUE(buffer_.append(frame("new", kSmall)));
  EXPECT_EQ(buffer_.consume(3000), 0u);
  EXPECT_EQ(read(10), "new");
  EXPECT_EQ(blocks_.live(), 0u);
}

TEST_F(TcpReceiveBuffer, TheRunsOfAViewAreLimited) {
  std::string data;
  for (int i = 0; i < 20; ++i) {
    std::string part = numbered(1448, data.size());
    ASSERT_TRUE(buffer_.append(frame(part, kSmall)));
    data += part;
  }
  Extents view = buffer_.view(data.size(), 100);
  EXPECT_EQ(view.count, Extents::kMax);
  EXPECT_EQ(text(view), data.substr(100, view.bytes));
  EXPECT_EQ(buffer_.consume(view.bytes), view.bytes);
}

TEST_F(TcpReceiveBuffer, WithoutMemoryNothingChanges) {
  ASSERT_TRUE(buffer_.append(frame("abc", kHuge)));
  uint32_t true_size = buffer_.true_size();
  Slice slice = frame(numbered(20000), kHuge);
  for (uint64_t allocations = 0;; ++allocations) {
    arena_.fail_after(allocations);
    bool done = buffer_.append(std::move(slice));
    arena_.never_fail();
    if (done) break;
    EXPECT_EQ(buffer_.size(), 3u);
    EXPECT_EQ(buffer_.true_size(), true_size);
    EXPECT_EQ(slice.length, 20000u) << "the caller keeps it";
    ASSERT_LT(allocations, 10u);
  }
  EXPECT_EQ(read(30000), "abc" + numbered(20000));
  EXPECT_EQ(blocks_.live(), 0u);
  EXPECT_EQ(pieces_.live(), 0u);
}

TEST_F(TcpReceiveBuffer, AgreesWithAModel) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    test::SeededRandom random(seed);
    std::string model;
    size_t position = 0;
    for (int step = 0; step < 500; ++step) {
      if (random.chance(0.55)) {
        size_t n = 1 + random.below(random.chance(0.6) ? 1500 : 60000);
        std::string part = numbered(n, position);
        ASSERT_TRUE(buffer_.append(frame(part, n > 2000 || random.chance(0.3) ? kHuge : kSmall)));
        model += part;
        position += n;
      } else {
        size_t offset = random.chance(0.2) ? random.below(model.size() + 1) : 0;
        Extents view = buffer_.view(1 + random.below(100000), offset);
        ASSERT_EQ(text(view), model.substr(offset, view.bytes));
        size_t n = offset > 0 ? 0 : random.below(view.bytes + 1);
        ASSERT_EQ(buffer_.consume(n), n);
        model.erase(0, n);
      }
      ASSERT_EQ(buffer_.size(), model.size());
    }
    EXPECT_EQ(read(model.size()), model);
    EXPECT_EQ(buffer_.true_size(), 0u);
  }
  EXPECT_EQ(blocks_.live(), 0u);
}

}  // namespace
}  // namespace ustack::tcp
