#include "stack/mem/slab.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

struct Counted {
  static inline int alive = 0;
  explicit Counted(int v) : value(v) { ++alive; }
  ~Counted() { --alive; }
  int value;
  char weight[100];
};

/// With pools that recycle, and with every object its own heap block.
class SlabTest : public testing::TestWithParam<bool> {
 protected:
  test::HeapArena arena{GetParam()};
  std::multiset<int> values(Slab<Counted>& slab) {
    std::multiset<int> found;
    slab.for_each([&](Counted& object) { found.insert(object.value); });
    return found;
  }
};
INSTANTIATE_TEST_SUITE_P(Recycling, SlabTest, testing::Bool());

TEST_P(SlabTest, EnumeratesExactlyWhatIsAlive) {
  Slab<Counted> slab(arena);
  EXPECT_EQ(values(slab), (std::multiset<int>{}));
  Counted* one = slab.create(1);
  Counted* two = slab.create(2);
  slab.create(3);
  EXPECT_EQ(values(slab), (std::multiset<int>{1, 2, 3}));
  slab.destroy(two);
  EXPECT_EQ(values(slab), (std::multiset<int>{1, 3}));
  slab.destroy(one);
  EXPECT_EQ(slab.live(), 1u);
  EXPECT_EQ(values(slab), (std::multiset<int>{3}));
}

TEST_P(SlabTest, DestructorEndsWhatIsAliveAndGivesAllBack) {
  {
    Slab<Counted> slab(arena);
    for (int i = 0; i < 1000; ++i) slab.create(i);
    EXPECT_EQ(Counted::alive, 1000);
    EXPECT_EQ(values(slab).size(), 1000u);
  }
  EXPECT_EQ(Counted::alive, 0);
  EXPECT_EQ(arena.objects(), 0u);
}

TEST_P(SlabTest, VisitorMayDestroyWhatItIsGiven) {
  Slab<Counted> slab(arena);
  for (int i = 0; i < 500; ++i) slab.create(i);
  slab.for_each([&](Counted& object) {
    if (object.value % 3 != 0) slab.destroy(&object);
  });
  EXPECT_EQ(slab.live(), 167u);
  slab.for_each([&](Counted& object) { slab.destroy(&object); });
  EXPECT_EQ(slab.live(), 0u);
  slab.for_each([](Counted&) { FAIL(); });
}

TEST_P(SlabTest, RandomLifeAgreesWithASet) {
  test::SeededRandom random(7);
  Slab<Counted> slab(arena);
  std::vector<Counted*> alive;
  std::multiset<int> expected;
  for (int step = 0; step < 20000; ++step) {
    if (random.chance(step % 4000 < 2000 ? 0.7 : 0.3)) {
      alive.push_back(slab.create(step));
      expected.insert(step);
    } else if (!alive.empty()) {
      size_t i = random.below(alive.size());
      expected.erase(expected.find(alive[i]->value));
      slab.destroy(alive[i]);
      alive[i] = alive.back();
      alive.pop_back();
    }
    if (step % 1000 == 0) {
      ASSERT_EQ(values(slab), expected);
    }
  }
  ASSERT_EQ(values(slab), expected);
}

TEST_P(SlabTest, NoMemoryIsNullAndHarmless) {
  Slab<Counted> slab(arena);
  arena.set_limit(0);
  EXPECT_EQ(slab.create(1), nullptr);
  EXPECT_EQ(slab.live(), 0u);
  arena.never_fail();
  EXPECT_NE(slab.create(1), nullptr);
  slab.destroy(nullptr);
  EXPECT_EQ(slab.live(), 1u);
}

TEST(Slab, ReusesLastInFirstOutAndGivesEmptyChunksBack) {
  test::HeapArena arena(/*recycle=*/true);
  Slab<Counted> slab(arena);
  Counted* first = slab.create(1);
  Counted* second = slab.create(2);
  slab.destroy(first);
  EXPECT_EQ(slab.create(3), first);
  slab.destroy(second);
  slab.destroy(first);
  EXPECT_EQ(slab.create(4), first);
  EXPECT_EQ(slab.create(5), second);

  std::vector<Counted*> many;
  for (int i = 0; i < 10 * Slab<Counted>::kCapacity; ++i) many.push_back(slab.create(i));
  EXPECT_GE(arena.objects(), 10u);
  for (Counted* object : many) slab.destroy(object);
  EXPECT_LE(arena.objects(), 2u);
}

TEST(Slab, ObjectsLargerThanAChunkAndOverAligned) {
  struct alignas(64) Large {
    char bytes[20000];
  };
  test::HeapArena arena;
  Slab<Large> slab(arena);
  EXPECT_EQ(Slab<Large>::kCapacity, 1);
  Large* one = slab.create();
  Large* two = slab.create();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(two) % 64, 0u);
  slab.destroy(one);
  slab.destroy(two);
}

/// What a process leaves that was killed: an object that nobody has, and one that was about to end.
TEST_P(SlabTest, CensusFreesWhatNobodyHas) {
  Slab<Counted> slab(arena);
  std::vector<Counted*> objects;
  for (int i = 0; i < 300; ++i) objects.push_back(slab.create(i));
  slab.begin_census();
  for (int i = 0; i < 300; i += 3) Slab<Counted>::see(*objects[static_cast<size_t>(i)]);
  EXPECT_EQ(slab.unseen(), 200u);
  slab.end_census();
  EXPECT_EQ(slab.live(), 100u);
  EXPECT_EQ(values(slab).size(), 100u);
  const size_t before = arena.in_use();
  if (GetParam()) {
    for (int i = 0; i < 200; ++i) slab.create(i);
    EXPECT_EQ(arena.in_use(), before) << "the free places are used again";
  }
  Counted::alive = static_cast<int>(slab.live());
}

}  // namespace
}  // namespace ustack
