#include "stack/mem/block.h"

#include <gtest/gtest.h>

#include <algorithm>
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

/// A reference that went with a killed process.
void lose(BlockRef&& block) { new (&block) BlockRef(); }

TEST(CensusTest, FreesWhatNobodyHas) {
  test::HeapArena arena(true);
  BlockPool pool(arena);
  BlockRef kept = pool.allocate(100), shared = pool.allocate(5000);
  lose(pool.allocate(100));
  lose(BlockRef(shared));
  pool.begin_census();
  BlockPool::see(kept);
  BlockPool::see(shared);
  EXPECT_EQ(pool.miscounted(), 2u);
  EXPECT_EQ(pool.end_census(), 1u);
  EXPECT_EQ(pool.live(), 2u);
  EXPECT_EQ(shared->references(), 1u);
  EXPECT_EQ(pool.live_bytes(), kept->true_size() + shared->true_size());
  Block* block = shared.get();
  shared.reset();
  EXPECT_EQ(pool.allocate(5000).get(), block) << "free, and the last one that became it";
}

TEST(CensusTest, FreeBlocksStayFree) {
  test::HeapArena arena(true);
  BlockPool pool(arena);
  std::vector<BlockRef> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(pool.allocate(100));
  blocks.clear();
  const size_t before = arena.in_use();
  pool.begin_census();
  EXPECT_EQ(pool.miscounted(), 0u);
  EXPECT_EQ(pool.end_census(), 0u);
  for (int i = 0; i < 10; ++i) blocks.push_back(pool.allocate(100));
  EXPECT_EQ(arena.in_use(), before);
}

TEST(CensusTest, FreesFramesWithTheirPayload) {
  test::HeapArena arena(true);
  BlockPool pool(arena);
  FramePool frames(arena);
  FrameQueue queue;
  TxFrame* queued = frames.allocate();
  EXPECT_TRUE(queued->append(Slice{pool.allocate(1000), 0, 1000}));
  queue.push_back(*queued);
  TxFrame* lost = frames.allocate();
  EXPECT_TRUE(lost->append(Slice{pool.allocate(1000), 0, 1000}));
  EXPECT_TRUE(lost->append(queued->payload()[0]));
  lost->prepend(20);
  alignas(FrameQueue) std::byte dead_root[sizeof(FrameQueue)];
  (new (dead_root) FrameQueue)->push_back(*lost);
  std::memset(dead_root, 0,
              sizeof dead_root);  // a list on the stack of the dead, where something else is now

  frames.begin_census();
  pool.begin_census();
  FramePool::see(*queued);
  EXPECT_EQ(frames.miscounted(), 1u);
  EXPECT_EQ(pool.miscounted(), 2u);
  EXPECT_EQ(frames.end_census(), 1u);
  EXPECT_EQ(pool.end_census(), 1u);
  EXPECT_EQ(frames.live(), 1u);
  EXPECT_EQ(pool.live(), 1u);
  EXPECT_EQ(queued->payload()[0].block->references(), 1u);
  EXPECT_TRUE(std::ranges::all_of(dead_root, [](std::byte byte) { return byte == std::byte{0}; }));
  TxFrame* again = frames.allocate();
  EXPECT_EQ(again, lost);
  EXPECT_EQ(again->size(), 0u);
  frames.release(again);
  frames.release(queue.pop_front());
  EXPECT_EQ(pool.live(), 0u);
}

}  // namespace
}  // namespace ustack
