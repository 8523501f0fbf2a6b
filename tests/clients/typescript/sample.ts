// What a client's program does with the generated types: book, list results page by page, explain a problem.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Appointment = components["schemas"]["AppointmentResponse"];
type Problem = components["schemas"]["Problem"];
type Result = components["schemas"]["ResultResponse"];

const client = createClient<paths>({
  baseUrl: "http://127.0.0.1:8080",
  headers: { Authorization: "Bearer example" },
});

export async function book(patientId: string, startsAt: Date): Promise<Appointment> {
  const { data, error } = await client.POST("/v1/appointments", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: {
      patient_id: patientId,
      service_id: "01900000-0000-7000-8000-5e0000000001",
      centre_id: "01900000-0000-7000-8000-ce0000000001",
      department_id: "01900000-0000-7000-8000-de0000000001",
      starts_at: startsAt.toISOString(),
    },
  });
  if (error) throw new Error(explained(error));
  return data;
}

export async function* results(patientId: string): AsyncGenerator<Result> {
  let cursor: string | null = null;
  do {
    const answer = await resultPage(patientId, cursor);
    yield* answer.items;
    cursor = answer.next_cursor;
  } while (cursor !== null);
}

async function resultPage(patientId: string, cursor: string | null) {
  const { data, error } = await client.GET("/v1/lab/results", {
    params: { query: { patient_id: patientId, cursor } },
  });
  if (error) throw new Error(explained(error));
  return data;
}

export function explained(problem: Problem): string {
  const advice = problem.type === "/problems/slot-taken" ? "Choose another time." : problem.detail;
  return `${problem.title} (${problem.status}): ${advice} [${problem.request_id}]`;
}

export function isExpected(appointment: Appointment): boolean {
  return appointment.status === "booked" || appointment.status === "confirmed";
}
