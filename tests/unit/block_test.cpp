#include "stack/mem/block.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "stack/net/frame.h"
#include "tests/support/heap_arena.h"

namespace ustack {
namespace {

class BlockTest : public testing::TestWithParam<bool> {
 protected:
  test::HeapArena arena{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Recycling, BlockTest, testing::Bool());

TEST_P(BlockTest, SmallestSizeThatFits) {
  BlockPool pool(arena);
  EXPECT_EQ(pool.allocate(0)->capacity(), BlockPool::kSizes[0]);
  for (uint32_t size : BlockPool::kSizes) {
    EXPECT_EQ(pool.allocate(size)->capacity(), size);
    if (size < BlockPool::kLargest) {
      EXPECT_GT(pool.allocate(size + 1)->capacity(), size);
    }
  }
  EXPECT_FALSE(pool.allocate(BlockPool::kLargest + 1));
  EXPECT_EQ(pool.live(), 0u);
}

TEST_P(BlockTest, LastReferenceGivesItBack) {
  BlockPool pool(arena);
  BlockRef a = pool.allocate(1000);
  EXPECT_TRUE(a.unique());
  BlockRef b = a;
  EXPECT_FALSE(a.unique());
  EXPECT_EQ(a->references(), 2u);
  a.reset();
  EXPECT_TRUE(b.unique());
  EXPECT_EQ(pool.live(), 1u);
  EXPECT_EQ(pool.live_bytes(), b->true_size());
  b = BlockRef();
  EXPECT_EQ(pool.live(), 0u);
  EXPECT_EQ(pool.live_bytes(), 0u);
}

TEST_P(BlockTest, AssignmentToItselfAndMove) {
  BlockPool pool(arena);
  BlockRef a = pool.allocate(10);
  BlockRef& same = a;
  a = same;
  EXPECT_TRUE(a.unique());
  BlockRef b = std::move(a);
  EXPECT_FALSE(a);
  EXPECT_TRUE(b.unique());
}

TEST_P(BlockTest, SliceArithmetic) {
  BlockPool pool(arena);
  Slice slice{pool.allocate(100), 0, 100};
  for (int i = 0; i < 100; ++i) slice.data()[i] = static_cast<std::byte>(i);
  Slice part = slice.sub(10, 20);
  EXPECT_EQ(part.bytes().size(), 20u);
  EXPECT_EQ(part.bytes()[0], std::byte{10});
  part.trim_front(5);
  EXPECT_EQ(part.bytes()[0], std::byte{15});
  EXPECT_EQ(part.length, 15u);
  part.truncate(3);
  EXPECT_EQ(part.bytes().size(), 3u);
  EXPECT_TRUE(Slice().bytes().empty());
}

TEST_P(BlockTest, NoMemoryIsAnEmptyReference) {
  BlockPool pool(arena);
  arena.set_limit(0);
  EXPECT_FALSE(pool.allocate(1));
  EXPECT_EQ(pool.live(), 0u);
}

TEST_P(BlockTest, PoolKeepsSomeAndReturnsTheRest) {
  BlockPool pool(arena);
  std::vector<BlockRef> blocks;
  for (int i = 0; i < 500; ++i) blocks.push_back(pool.allocate(2000));
  size_t all = arena.objects();
  blocks.clear();
  EXPECT_LT(arena.objects(), all / 2);
  if (GetParam()) {
    EXPECT_GT(arena.objects(), 0u);
  } else {
    EXPECT_EQ(arena.objects(), 0u);
  }
}

TEST_P(BlockTest, FramePrependsHeadersAndRefersToPayload) {
  BlockPool pool(arena);
  FramePool frames(arena);
  TxFrame* frame = frames.allocate();
  EXPECT_EQ(frames.live(), 1u);
  Slice payload{pool.allocate(1000), 0, 1000};
  EXPECT_TRUE(frame->append(payload));
  std::byte* tcp = frame->prepend(20);
  std::byte* ip = frame->prepend(20);
  EXPECT_EQ(ip + 20, tcp);
  EXPECT_EQ(frame->header().size(), 40u);
  EXPECT_EQ(frame->header().data(), ip);
  EXPECT_EQ(frame->size(), 1040u);
  EXPECT_EQ(payload.block->references(), 2u);
  for (uint32_t i = 1; i < TxFrame::kMaxSlices; ++i) EXPECT_TRUE(frame->append(payload.sub(0, 1)));
  EXPECT_FALSE(frame->append(payload.sub(0, 1)));
  EXPECT_EQ(frame->payload_bytes(), 1000u + TxFrame::kMaxSlices - 1);
  frames.release(frame);
  EXPECT_EQ(payload.block->references(), 1u);
  EXPECT_EQ(frames.live(), 0u);

  frame = frames.allocate();
  EXPECT_EQ(frame->size(), 0u);
  EXPECT_TRUE(frame->payload().empty());
  EXPECT_FALSE(frame->offload.partial_checksum);
  EXPECT_DEATH(frame->prepend(TxFrame::kHeaderRoom + 1), "");
  frames.release(frame);
}

}  // namespace
}  // namespace ustack
